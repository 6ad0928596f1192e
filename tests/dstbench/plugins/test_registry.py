"""Discovery, with distributions made up in a temporary folder."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from textwrap import dedent
from typing import Annotated, Literal, get_args

import pytest
from pydantic import Field

from dstbench import hookimpl
from dstbench.contracts import PluginSettings
from dstbench.errors import PluginError
from dstbench.plugins import PINS, hookspecs
from dstbench.plugins.describe import Setting, describe, describe_settings
from dstbench.plugins.plugin import Kind, check_name
from dstbench.plugins.registry import Plugins, load_plugins

Install = Callable[..., None]

HEADER = """
from dstbench import hookimpl
from dstbench.contracts import PluginSettings
"""


def sparsifier(
    name: str, hook: str = "dstbench_sparsifiers", settings: str = "PluginSettings"
) -> str:
    """Source of a plugin module with one sparsifier."""
    return f"""{HEADER}
class Mine:
    '''Grow where the moon shines.

    More about the moon.
    '''
    name = {name!r}
    Settings = {settings}

@hookimpl
def {hook}():
    return [Mine]
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution with one plugin module; no other distribution is seen."""
    modules: list[str] = []

    def entry_points(*, group: str) -> list[metadata.EntryPoint]:
        return [
            entry_point
            for distribution in metadata.distributions(path=[str(tmp_path)])
            for entry_point in distribution.entry_points.select(group=group)
        ]

    def install(
        distribution: str, source: str, entry_point: str = "", version: str = "1.0"
    ) -> None:
        module = f"fake_{distribution.replace('-', '_')}"
        modules.append(module)
        (tmp_path / f"{module}.py").write_text(dedent(source))
        info = tmp_path / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Name: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(
            f"[dstbench]\n{entry_point or distribution} = {module}\n"
        )

    monkeypatch.setattr(metadata, "entry_points", entry_points)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv(PINS, raising=False)
    yield install
    for module in modules:
        sys.modules.pop(module, None)


def test_a_plugin_is_found_by_kind_and_name(install: Install) -> None:
    install("moon-plugin", sparsifier("moon"), version="2.1")
    plugins = load_plugins()
    assert plugins.names("sparsifier") == ["moon"]
    assert plugins.names("model") == []
    assert plugins.find("sparsifier", "moon").__name__ == "Mine"
    assert json.loads(json.dumps([plugin.as_dict() for plugin in plugins.listing])) == [
        {
            "name": "moon",
            "kind": "sparsifier",
            "distribution": "moon-plugin",
            "version": "2.1",
            "state": "ok",
            "summary": "Grow where the moon shines.",
            "traceback": None,
            "needs": [],
        }
    ]


def test_what_a_plugin_lacks_is_told(install: Install) -> None:
    lacking = sparsifier("moon").replace(
        "name = ", "packages = {'no_such': 'moon[all]', 'json': 'x', 'no.such': 'a'}\n    name = "
    )
    install("moon-plugin", lacking)
    (plugin,) = load_plugins().listing
    assert (plugin.state, plugin.needs) == ("ok", ("a", "moon[all]"))


def test_a_description_is_plain_text() -> None:
    class Described:
        """Draws *Sketches* (``points``, 3).

        Raises :class:`~dstbench.errors.DataError`, see :func:`describe`.
        """

    assert describe(Described) == ("Draws Sketches (points, 3).\n\nRaises DataError, see describe.")


def test_unknown_names_get_the_nearest_one(install: Install) -> None:
    install("moon-plugin", sparsifier("moon"))
    install("sun-plugin", sparsifier("sun"))
    plugins = load_plugins()
    with pytest.raises(PluginError) as caught:
        plugins.find("sparsifier", "mono")
    assert str(caught.value) == (
        "unknown sparsifier 'mono'; did you mean 'moon'? (known: dense, moon, small-dense, sun)"
    )
    with pytest.raises(PluginError) as caught:
        plugins.find("model", "moon")
    assert str(caught.value) == "unknown model 'moon'; there are none"
    with pytest.raises(PluginError) as caught:
        plugins.named("xyz")
    assert str(caught.value) == "unknown plugin 'xyz'; known: moon, sun"
    assert [plugin.kind for plugin in plugins.named("sun")] == ["sparsifier"]


def test_a_plugin_that_fails_to_import_is_listed_with_its_traceback(install: Install) -> None:
    install("moon-plugin", sparsifier("moon"))
    install("sad-plugin", "import a_module_that_is_not_there")
    plugins = load_plugins()
    (broken,) = plugins.named("sad-plugin")
    assert (broken.state, broken.kind, broken.version) == ("broken", None, "1.0")
    assert broken.summary == "ModuleNotFoundError: No module named 'a_module_that_is_not_there'"
    assert broken.traceback is not None
    assert "fake_sad_plugin.py" in broken.traceback
    assert plugins.names("sparsifier") == ["moon"]
    with pytest.raises(PluginError) as caught:
        plugins.find("sparsifier", "sad")
    assert str(caught.value) == (
        "unknown sparsifier 'sad'; known: dense, moon, small-dense; "
        "not loaded ('dstbench plugins' says why): broken: sad-plugin"
    )


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (sparsifier("../moon"), "fake_odd.Mine: '../moon' is not a name: use lower-case letters, "
         "digits, '_', '.' and '-', with a letter or digit first"),
        (sparsifier("dense"), "fake_odd.Mine: 'dense' is the name of the reference; "
         "choose another"),
        (sparsifier("moon").replace("    name", "    nam"), "fake_odd.Mine has no 'name' "
         "(a string, in the body of the class)"),
        (sparsifier("moon", "dstbench_models"), "fake_odd.Mine has no 'accepts' "
         "(a string, in the body of the class)"),
        (sparsifier("moon", "dstbench_datasets"), "fake_odd.Mine has no 'kind' "
         "(a string, in the body of the class)"),
        (sparsifier("moon", settings="dict"), "fake_odd.Mine.Settings is not a class derived from "
         "PluginSettings"),
        (sparsifier("moon", "dstbench_datasets").replace("class Mine:", "from dstbench.contracts "
         "import Dataset\nclass Mine(Dataset):\n    kind = 'tides'"),
         "fake_odd.Mine does not define load"),
        (sparsifier("moon", "dstbench_models").replace("class Mine:", "from dstbench.contracts "
         "import Model\nclass Mine(Model):\n    accepts = 'tides'"),
         "fake_odd.Mine does not define batch, loss, sample and outline (or, in its place, build, "
         "example, calls_per_sample)"),
        (sparsifier("moon", "dstbench_models").replace("class Mine:", "from dstbench.contracts "
         "import Model\nclass Mine(Model):\n    accepts = 'tides'\n    calls_per_sample = 1\n"
         "    batch = loss = sample = build = lambda self: None"),
         "fake_odd.Mine does not define outline (or, in its place, build, example, "
         "calls_per_sample)"),
        (sparsifier("moon", "dstbench_models").replace("class Mine:", "from dstbench.contracts "
         "import Model\nclass Mine(Model):\n    accepts = 'tides'\n    calls_per_sample = 1\n"
         "    build = example = lambda self: None"),
         "fake_odd.Mine does not define batch, loss, sample"),
        (sparsifier("moon").replace("[Mine]", "['moon']"), "a hook returned 'moon' among its "
         "sparsifiers; it should return classes"),
        (sparsifier("moon").replace("@hookimpl", ""), "no hook found: mark the plugin's functions "
         "with @dstbench.hookimpl and name them after a hook (dstbench_models, dstbench_datasets, "
         "dstbench_sparsifiers, dstbench_feature_extractors, dstbench_metrics, "
         "dstbench_executors, dstbench_trackers, dstbench_run_started, dstbench_run_finished, "
         "dstbench_cell_started, dstbench_step, dstbench_progressed, dstbench_topology_updated, "
         "dstbench_layers_changed, dstbench_cell_finished)"),
    ],
)  # fmt: skip
def test_a_plugin_without_what_the_harness_needs_is_broken(
    install: Install, source: str, reason: str
) -> None:
    install("odd", source)
    (plugin,) = load_plugins().listing
    assert plugin.state == "broken"
    assert plugin.summary == f"dstbench.errors.PluginError: {reason}"


def test_a_broken_plugin_is_known_by_its_entry_point(install: Install) -> None:
    install("sad", "import a_module_that_is_not_there", version="0.1")
    plugins = load_plugins()
    for kind in get_args(Kind):
        assert plugins.get(kind, "sad").origin == "sad 0.1"
        with pytest.raises(PluginError) as caught:
            plugins.find(kind, "sad")
        assert str(caught.value) == (
            f"{kind} 'sad' of sad 0.1 is broken: ModuleNotFoundError: No module named "
            "'a_module_that_is_not_there'"
        )
        assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    assert "error" not in plugins.get("model", "sad").as_dict()


def test_a_plugin_goes_before_a_broken_one_of_its_name(install: Install) -> None:
    install("a", "import a_module_that_is_not_there", entry_point="moon")
    install("b", sparsifier("moon"))
    plugins = load_plugins()
    assert plugins.find("sparsifier", "moon").__name__ == "Mine"
    with pytest.raises(PluginError, match="model 'moon' of a 1"):
        plugins.find("model", "moon")


def test_a_plugin_that_nobody_can_describe_is_broken(install: Install) -> None:
    install(
        "odd",
        """
        from dstbench import hookimpl
        from dstbench.contracts import PluginSettings
        class Odd(type):
            @property
            def __doc__(cls):
                raise RuntimeError("words fail me")
        class Mine(metaclass=Odd):
            name = "mine"
            Settings = PluginSettings
        @hookimpl
        def dstbench_sparsifiers():
            return [Mine]
        """,
    )
    (plugin,) = load_plugins().listing
    assert (plugin.state, plugin.summary) == ("broken", "RuntimeError: words fail me")


def test_a_distribution_that_was_half_removed_takes_nothing_down(
    install: Install, tmp_path: Path
) -> None:
    install("moon", sparsifier("moon"))
    install("gone", "import a_module_that_is_not_there")
    (tmp_path / "fake_gone-1.0.dist-info" / "METADATA").unlink()
    plugins = load_plugins()
    assert plugins.get("model", "gone").origin == "unknown unknown"
    assert plugins.names("sparsifier") == ["moon"]


def test_nor_does_one_that_another_library_has_found(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    """importlib_metadata, once imported, takes the place of Python's own finder."""

    class Gone:
        @property
        def name(self) -> str:
            raise FileNotFoundError("No package metadata was found.")

    install("moon", sparsifier("moon"))
    (found,) = metadata.entry_points(group="dstbench")
    vars(found)["dist"] = Gone()
    monkeypatch.setattr(metadata, "entry_points", lambda group: [found])

    assert load_plugins().get("sparsifier", "moon").origin == "unknown unknown"


def test_a_plugin_that_exits_is_broken(install: Install) -> None:
    install("odd", "raise SystemExit('needs a newer Python')")
    (plugin,) = load_plugins().listing
    assert (plugin.state, plugin.summary) == ("broken", "SystemExit: needs a newer Python")


def test_a_broken_plugin_hears_no_events(install: Install) -> None:
    install("odd", sparsifier("No!") + "\n@hookimpl\ndef dstbench_step():\n    raise KeyError\n")
    plugins = load_plugins()
    assert [plugin.state for plugin in plugins.listing] == ["broken"]
    assert plugins.manager.hook.dstbench_step(cell=None, step=1, loss=0.0) == []


def test_a_hook_with_an_unknown_argument_breaks_its_plugin(install: Install) -> None:
    install("odd", HEADER + "@hookimpl\ndef dstbench_step(stepp):\n    pass\n")
    (plugin,) = load_plugins().listing
    assert plugin.state == "broken"
    assert plugin.traceback is not None
    assert "stepp" in plugin.traceback


def test_two_plugins_of_one_name_are_an_error_that_names_both(install: Install) -> None:
    install("moon-plugin", sparsifier("moon"), version="2.1")
    install("other-moon", sparsifier("moon"))
    with pytest.raises(PluginError) as caught:
        load_plugins()
    assert str(caught.value) == (
        "two plugins are called sparsifier 'moon': one of moon-plugin 2.1, one of other-moon 1.0; "
        "uninstall one, or choose with DSTBENCH_PLUGINS"
    )


def test_the_same_name_for_different_kinds_is_fine(install: Install) -> None:
    install("moon-plugin", sparsifier("moon"))
    install("moon-features", sparsifier("moon", "dstbench_feature_extractors"))
    assert {p.kind for p in load_plugins().named("moon")} == {"sparsifier", "feature extractor"}


def test_a_misspelt_hook_is_an_error(install: Install) -> None:
    install("moon-plugin", sparsifier("moon", "dstbench_sparsifier"))
    with pytest.raises(PluginError) as caught:
        load_plugins()
    assert str(caught.value).startswith(
        "plugin moon-plugin of moon-plugin: unknown hook 'dstbench_sparsifier'; "
        "did you mean 'dstbench_sparsifiers'? (known: "
    )
    assert str(caught.value).endswith("; correct it, or leave the plugin out with DSTBENCH_PLUGINS")


@pytest.mark.parametrize(
    ("pins", "loaded", "switched_off"),
    [
        (None, {"ours", "moon", "sun"}, set()),
        ("", {"ours"}, {"moon-plugin", "sun-plugin"}),
        (" sun-plugin ,", {"ours", "sun"}, {"moon-plugin"}),
        ("sun-plugin,moon-plugin", {"ours", "moon", "sun"}, set()),
    ],
)
def test_third_party_plugins_can_be_pinned(
    install: Install,
    monkeypatch: pytest.MonkeyPatch,
    pins: str | None,
    loaded: set[str],
    switched_off: set[str],
) -> None:
    install("dstbench", sparsifier("ours"))
    install("moon-plugin", sparsifier("moon"))
    install("sun-plugin", sparsifier("sun"))
    if pins is not None:
        monkeypatch.setenv(PINS, pins)
    plugins = load_plugins()
    assert set(plugins.names("sparsifier")) == loaded
    assert {p.name for p in plugins.listing if p.state == "switched off"} == switched_off
    assert ("fake_moon_plugin" in sys.modules) == ("moon" in loaded)


def test_a_pin_that_is_not_installed_is_an_error(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("moon-plugin", sparsifier("moon"))
    monkeypatch.setenv(PINS, "mon-plugin")
    with pytest.raises(PluginError) as caught:
        load_plugins()
    assert str(caught.value) == (
        "DSTBENCH_PLUGINS names 'mon-plugin'; did you mean 'moon-plugin'? (known: moon-plugin)"
    )


def test_what_is_switched_off_is_a_possible_cause(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("moon-plugin", sparsifier("moon"))
    monkeypatch.setenv(PINS, "")
    with pytest.raises(PluginError) as caught:
        load_plugins().find("sparsifier", "moon")
    assert str(caught.value) == (
        "unknown sparsifier 'moon'; known: dense, small-dense; "
        "not loaded ('dstbench plugins' says why): switched off: moon-plugin"
    )


def test_a_plugin_that_is_switched_off_is_said_to_be(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("moon", sparsifier("moon"), version="2.1")
    monkeypatch.setenv(PINS, "")
    with pytest.raises(PluginError) as caught:
        load_plugins().find("sparsifier", "moon")
    assert str(caught.value) == (
        "sparsifier 'moon': the plugin 'moon' of moon 2.1 is switched off, because "
        "DSTBENCH_PLUGINS does not list it"
    )


@pytest.mark.parametrize("name", ["a", "lenet-digits", "0.5_b", "x..y"])
def test_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-a", "A", "a b", "a\n", "é", "a\0"])
def test_what_is_not_a_name(name: str) -> None:
    with pytest.raises(ValueError, match="is not a name"):
        check_name(name)


def test_settings_are_described() -> None:
    class Nested(PluginSettings):
        depth: int = Field(2, description="levels")

    class Settings(PluginSettings):
        nested: Nested = Nested()
        channels: tuple[Annotated[int, Field(gt=0)], ...] = (1, 2)
        prune_rate: float = Field(0.5, ge=0, lt=1, description="fraction dropped")
        layers: tuple[str, ...] = ()
        precision: Literal["fp32", "bf16"] = "fp32"
        clip: float | None = None
        steps: int
        frozen: bool = True

    assert describe_settings(Settings) == [
        Setting("nested.depth", "int", "2", "levels"),
        Setting("channels", "list[int]", "[1, 2]", ""),
        Setting("prune_rate", "float, ≥ 0, < 1", "0.5", "fraction dropped"),
        Setting("layers", "list[str]", "[]", ""),
        Setting("precision", '"fp32" | "bf16"', '"fp32"', ""),
        Setting("clip", "float | None", "none", ""),
        Setting("steps", "int", "required", ""),
        Setting("frozen", "bool", "true", ""),
    ]


def test_a_default_that_cannot_be_told_is_said_to_be() -> None:
    class Settings(PluginSettings):
        sun: int = Field(default_factory=lambda: 1 // 0)
        moon: int = Field(default_factory=lambda validated: validated["sun"])
        star: int = Field(default_factory=lambda: 1)

    assert [setting.default for setting in describe_settings(Settings)] == [
        "not known (ZeroDivisionError)",
        "not known (KeyError)",
        "1",
    ]


def check_class_hook(install: Install, kind: Kind, hook: str, extra: str = "") -> None:
    install("moon-plugin", sparsifier("moon", hook).replace("    name", f"    {extra}\n    name"))
    assert load_plugins().names(kind) == ["moon"]


def test_dstbench_models(install: Install) -> None:
    check_class_hook(install, "model", "dstbench_models", "accepts = 'images'")


def test_dstbench_datasets(install: Install) -> None:
    check_class_hook(install, "dataset", "dstbench_datasets", "kind = 'images'")


def test_dstbench_sparsifiers(install: Install) -> None:
    check_class_hook(install, "sparsifier", "dstbench_sparsifiers")


def test_dstbench_feature_extractors(install: Install) -> None:
    check_class_hook(install, "feature extractor", "dstbench_feature_extractors")


def test_dstbench_metrics(install: Install) -> None:
    check_class_hook(install, "metric", "dstbench_metrics", "quantities = (1,)")


def test_dstbench_executors(install: Install) -> None:
    check_class_hook(install, "executor", "dstbench_executors")


def test_dstbench_trackers(install: Install) -> None:
    check_class_hook(install, "tracker", "dstbench_trackers")


def test_a_module_that_listens_is_listed(install: Install) -> None:
    event = "@hookimpl\ndef dstbench_step(step):\n    pass\n"
    install("ear", '"""Hears steps."""\n' + HEADER + event, version="1.2")
    install("moon", sparsifier("moon") + event)
    install("shade", sparsifier("shade"))
    listed = [(plugin.name, plugin.kind, plugin.origin) for plugin in load_plugins().listing]
    assert listed == [
        ("ear", "listener", "ear 1.2"),
        ("moon", "sparsifier", "moon 1.0"),
        ("moon", "listener", "moon 1.0"),
        ("shade", "sparsifier", "shade 1.0"),
    ]
    (ear,) = load_plugins().named("ear")
    assert (ear.state, ear.summary, ear.cls) == ("ok", "Hears steps.", None)


class Listener:
    def __init__(self) -> None:
        self.heard: list[tuple[object, ...]] = []

    @hookimpl
    def dstbench_cell_started(self, cell: object) -> None:
        self.heard.append(("started", cell))

    @hookimpl
    def dstbench_step(self, step: int, loss: float) -> None:
        self.heard.append(("step", step, loss))

    @hookimpl
    def dstbench_run_started(self, benchmark: str, cells: object) -> None:
        self.heard.append(("run started", benchmark, cells))

    @hookimpl
    def dstbench_run_finished(self, benchmark: str, records: object) -> None:
        self.heard.append(("run finished", benchmark, records))

    @hookimpl
    def dstbench_progressed(self, step: int, loss: float, seconds_per_step: float) -> None:
        self.heard.append(("progressed", step, loss, seconds_per_step))

    @hookimpl
    def dstbench_layers_changed(self, step: int, layers: object) -> None:
        self.heard.append(("layers", step, layers))

    @hookimpl
    def dstbench_topology_updated(self, step: int, changed: int) -> None:
        self.heard.append(("topology", step, changed))

    @hookimpl
    def dstbench_cell_finished(self, record: object) -> None:
        self.heard.append(("finished", record))


def heard(hook: str, **arguments: object) -> list[tuple[object, ...]]:
    """What a listener hears that was registered by hand, after one event."""
    plugins, listener = Plugins(), Listener()
    plugins.manager.register(listener)
    getattr(plugins.manager.hook, hook)(**arguments)
    return listener.heard


def test_dstbench_cell_started() -> None:
    assert heard("dstbench_cell_started", cell="c") == [("started", "c")]


def test_dstbench_step() -> None:
    assert heard("dstbench_step", cell="c", step=1, loss=0.5) == [("step", 1, 0.5)]


def test_dstbench_run_started() -> None:
    event = heard("dstbench_run_started", benchmark="b", cells=["c"])
    assert event == [("run started", "b", ["c"])]


def test_dstbench_run_finished() -> None:
    event = heard("dstbench_run_finished", benchmark="b", records=["r"])
    assert event == [("run finished", "b", ["r"])]


def test_dstbench_progressed() -> None:
    event = heard("dstbench_progressed", cell="c", step=5, loss=0.5, seconds_per_step=0.1)
    assert event == [("progressed", 5, 0.5, 0.1)]


def test_dstbench_layers_changed() -> None:
    event = heard("dstbench_layers_changed", cell="c", step=5, layers=["l"])
    assert event == [("layers", 5, ["l"])]


def test_dstbench_topology_updated() -> None:
    event = heard("dstbench_topology_updated", cell="c", step=3, changed=7)
    assert event == [("topology", 3, 7)]


def test_dstbench_cell_finished() -> None:
    assert heard("dstbench_cell_finished", cell="c", record="r") == [("finished", "r")]


@pytest.mark.parametrize("hook", [n for n in vars(hookspecs) if n.startswith("dstbench_")])
def test_every_hook_is_documented_and_tested(hook: str) -> None:
    assert getattr(hookspecs, hook).__doc__
    assert f"test_{hook}" in globals()


def test_none_of_these_modules_imports_torch() -> None:
    modules = "dstbench.api, dstbench.grid.reader, dstbench.plugins.registry, dstbench.store, sys"
    code = f"import {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
