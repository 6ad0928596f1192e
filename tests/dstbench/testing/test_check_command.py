"""``dstbench check``."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dstbench import cli
from dstbench.errors import ConfigError, PluginError
from dstbench.plugins.plugin import Plugin
from dstbench.plugins.registry import Plugins
from dstbench.testing import Check
from dstbench.testing.checking import Broken, Subject, make_check
from dstbench.testing.running import Outcome, find, line, parse_settings, report, run


class Ended(NamedTuple):
    code: int
    out: str
    err: str


Dstbench = Callable[..., Ended]


@pytest.fixture
def dstbench(
    toys_installed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Dstbench:
    """Runs ``dstbench check`` with these arguments, the toys being installed."""

    def dstbench(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["dstbench", "check", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exited:
            cli.main()
        return Ended(int(exited.value.code or 0), *capsys.readouterr())

    return dstbench


def test_a_plugin_that_keeps_its_promises(dstbench: Dstbench) -> None:
    code, out, err = dstbench("toy-features", "toy-images")
    assert (code, err) == (0, "")
    assert out.startswith(
        "feature extractor toy-features, of toys 1.0\n✓ settings-are-documented\n"
    )
    assert "\n– drawings-are-svg: its items are no drawings: it has no to_svg\n" in out
    assert out.endswith("\n11 kept, 0 broken, 3 skipped\n\n")


def test_a_plugin_that_breaks_one(dstbench: Dstbench) -> None:
    code, out, _ = dstbench("toy-images", "--set", "train=0x1", "--set", "validation=1")
    assert code == 0, out
    code, out, _ = dstbench("toy-net")  # its images are 4×4 pixels, whatever it is given
    assert code == 1
    lines = out.splitlines()
    assert "✗ samples-fit-the-data" in lines
    report = lines[lines.index("") :]
    assert report[1] == "✗ samples-fit-the-data"
    assert report[2].startswith("Promised: Samples are items such as the dataset has them")
    assert report[3].startswith("Happened: sample 0 of 3 has shape (1, 4, 4)")
    assert report[4] == "Reproduce:"


def test_data_that_is_not_there_is_skipped(dstbench: Dstbench) -> None:
    code, out, _ = dstbench("toy-images", "--set", "away=person")
    assert code == 0
    assert (
        "\n– items-are-of-their-kind: its data is not there (missing): ask the toymaker\n"
        "– splits-are-disjoint: as above\n"
    ) in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["toy-imags"], "unknown plugin 'toy-imags'; did you mean 'toy-images'?"),
        (
            ["toy-images", "--set", "trian=3"],
            "toy-images: trian: unknown key; did you mean 'train'?",
        ),
        (["toy-images", "--set", "train=few"], "toy-images: train: should be a valid integer"),
        (["toy-images", "--set", "train"], "--set train: should be KEY=VALUE"),
        (["image-folder"], "image-folder: path: is missing; the folder or zip file"),
    ],
)
def test_what_is_asked_wrongly(dstbench: Dstbench, arguments: list[str], message: str) -> None:
    code, out, err = dstbench(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")


def test_a_broken_plugin_is_told_with_its_traceback(
    dstbench: Dstbench, toys_installed: Path
) -> None:
    info = toys_installed / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dstbench]\nbroken = no_such_module_at_all\n")
    code, out, err = dstbench("broken")
    assert (code, out) == (2, "")
    assert "error: the plugin 'broken' is broken:\nTraceback" in err
    assert "No module named 'no_such_module_at_all'" in err


def plugin(name: str, kind: Any, state: Any = "ok") -> Plugin:
    cls = type("Some", (), {}) if state == "ok" else None
    return Plugin(name, kind, "some", "1.0", state, cls=cls)


def test_a_name_of_several_kinds() -> None:
    plugins = Plugins()
    plugins.listing += [plugin("digits", "dataset"), plugin("digits", "model")]
    with pytest.raises(PluginError, match='choose with --kind: "dataset", "model"'):
        find(plugins, "digits", None)
    assert find(plugins, "digits", "model").kind == "model"
    with pytest.raises(PluginError, match="there is no sparsifier 'digits'"):
        find(plugins, "digits", "sparsifier")


def test_a_plugin_that_is_switched_off() -> None:
    plugins = Plugins()
    plugins.listing.append(plugin("mine", None, "switched off"))
    with pytest.raises(PluginError, match="what is there: plugin, switched off"):
        find(plugins, "mine", None)


def test_settings_are_toml_or_else_text() -> None:
    given = ["a=1", "b.c=[1, 2]", "b.d=true", "path=/some where/x.zip", 'e="1"']
    assert parse_settings(given) == {
        "a": 1,
        "b": {"c": [1, 2], "d": True},
        "path": "/some where/x.zip",
        "e": "1",
    }
    with pytest.raises(ConfigError, match="'a b' is not a key"):
        parse_settings(["a b=1"])


def check_that(happens: str, name: str) -> Check:
    def happening(subject: Subject) -> None:
        """All is well."""
        if happens:
            raise Broken(happens, "look there")

    happening.__name__ = name
    return make_check(happening, Subject(object, {}))


def test_what_was_told_is_not_told_again() -> None:
    outcomes = list(
        run([check_that("it rains", "dry"), check_that("", "fine"), check_that("it rains", "warm")])
    )
    assert [line(outcome, ()) for outcome in outcomes] == ["✗ dry", "✓ fine", "✗ warm"]
    assert report(outcomes) == (
        "✗ dry\nPromised: All is well.\nHappened: it rains\nReproduce:\n    look there\n\n"
        "✗ warm\nPromised: All is well.\nHappened: the same as in dry\n\n"
        "1 kept, 2 broken, 0 skipped"
    )
    skipped = Outcome(outcomes[1].check, "skipped", reason="no umbrella")
    assert line(skipped, outcomes) == "– fine: no umbrella"
    assert line(skipped, [skipped]) == "– fine: as above"
