"""Benchmark files: what they mean, and the message for every way to get one wrong."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import ConfigDict, Field, model_validator

from dstbench.contracts import PluginSettings
from dstbench.errors import ConfigError, SparsityError
from dstbench.grid.benchmark import Benchmark, SettingsFrom
from dstbench.grid.expansion import cells
from dstbench.grid.reader import load_benchmark
from dstbench.plugins.plugin import Kind, Plugin
from dstbench.plugins.registry import Plugins
from dstbench.records import Quantity
from dstbench.settings import EvaluationSettings, ExecutionSettings, TrainingSettings
from dstbench.sparsity import DynamicSparsifier


class Ldm:
    name = "ldm"
    accepts = "images"
    sampling_settings = ("steps",)

    class Settings(PluginSettings):
        channels: tuple[int, ...] = (32, 64)
        steps: int = Field(50, ge=1)

        @model_validator(mode="after")
        def check(self) -> "Ldm.Settings":
            if len(self.channels) > 4:
                raise ValueError("at most four levels of channels fit the latents")
            return self

    @classmethod
    def narrower(cls, settings: "Ldm.Settings") -> list["Ldm.Settings"]:
        return [settings] if max(settings.channels) > 1 else []


class Digits:
    name = "digits"
    kind = "images"
    Settings = PluginSettings


class Sketches:
    name = "sketches"
    kind = "sketches"
    Settings = PluginSettings


class Static:
    name = "static"
    Settings = PluginSettings


class Schedule(PluginSettings):
    start: float = 0.0
    stop: float = 0.75


class Rigl:
    name = "rigl"

    class Settings(PluginSettings):
        prune_rate: float = Field(0.3, gt=0, le=1)
        exploration_frequency: int = 100
        keep_dense: tuple[str, ...] = ()
        schedule: Schedule = Schedule()


class Lenet:
    name = "lenet"

    class Settings(PluginSettings):
        width: int = 8


class Inception:
    name = "inception"
    Settings: ClassVar[type[PluginSettings]] = PluginSettings


class Fid:
    name = "fid"
    quantities = (Quantity(name="fid", title="FID", better="lower"),)


class Farm:
    name = "farm"

    class Settings(PluginSettings):
        acres: int = 1


class Barn:
    name = "barn"

    class Settings(PluginSettings):
        burnt: bool = False

        @model_validator(mode="after")
        def check(self) -> "Barn.Settings":
            if self.burnt:
                raise KeyError("hay")
            return self


class Diary:
    name = "diary"

    class Settings(PluginSettings):
        lines: int = Field(10, ge=1)


class Radio:
    name = "radio"
    Settings = PluginSettings


CLASSES: dict[Kind, tuple[type[Any], ...]] = {
    "model": (Ldm,),
    "dataset": (Digits, Sketches),
    "sparsifier": (Static, Rigl),
    "feature extractor": (Lenet, Inception),
    "metric": (Fid,),
    "executor": (Farm, Barn),
    "tracker": (Diary, Radio),
}
PLUGINS = Plugins()
PLUGINS.listing = [
    Plugin(cls.name, kind, "fake", "1.0", "ok", cls=cls)
    for kind, classes in CLASSES.items()
    for cls in classes
]

GOOD = """\
name = "small"

[grid]
seeds = [0, 1]
sparsities = [0.5, 0.9]
sparsifiers = ["dense", "static", "rigl"]

[[tasks]]
model = "ldm"
dataset = "digits"

[training]
steps = 10
"""

Load = Callable[..., Benchmark]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load a benchmark called x.toml, after replacing parts of its text."""
    monkeypatch.chdir(tmp_path)

    def load(
        text: str,
        *replacements: tuple[str, str],
        preset: str | None = None,
        also: tuple[str, ...] = (),
    ) -> Benchmark:
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        Path("x.toml").write_text(text, encoding="utf-8")
        return load_benchmark(Path("x.toml"), PLUGINS, preset, also)

    return load


def test_a_benchmark(load: Load) -> None:
    benchmark = load(GOOD)
    assert benchmark.name == "small"
    assert benchmark.seeds == (0, 1)
    assert benchmark.sparsities == (0.5, 0.9)
    assert benchmark.sparsifiers == ("dense", "static", "rigl")
    (task,) = benchmark.tasks
    assert (task.model, task.dataset) == ("ldm", "digits")
    assert task.model_settings == Ldm.Settings()
    assert task.dataset_settings == PluginSettings()
    assert task.sparsifier_settings == {"static": (PluginSettings(),), "rigl": (Rigl.Settings(),)}
    assert task.extractor_settings == PluginSettings()
    assert task.training == TrainingSettings(steps=10)
    assert task.evaluation == EvaluationSettings()
    assert task.versions == dict.fromkeys(("model", "dataset", "feature extractor"), "fake 1.0")
    assert task.sparsifier_versions == {"static": "fake 1.0", "rigl": "fake 1.0"}


def test_a_task_overrides_the_keys_that_it_repeats(load: Load) -> None:
    tables = """
    [models.ldm]
    channels = [16]
    steps = 7
    [evaluation]
    extractor = "lenet"
    [extractors.lenet]
    width = 16
    """
    second = """
    [[tasks]]
    model = "ldm"
    dataset = "digits"
    [tasks.models.ldm]
    steps = 9
    [tasks.training]
    batch_size = 4
    [tasks.sparsifiers.rigl]
    prune_rate = 0.05
    [tasks.extractors.lenet]
    width = 32
    """
    first, other = load(GOOD + tables + second).tasks
    assert first.model_settings == Ldm.Settings(channels=(16,), steps=7)
    assert other.model_settings == Ldm.Settings(channels=(16,), steps=9)
    assert first.training == TrainingSettings(steps=10)
    assert other.training == TrainingSettings(steps=10, batch_size=4)
    assert first.sparsifier_settings["rigl"] == (Rigl.Settings(),)
    assert other.sparsifier_settings["rigl"] == (Rigl.Settings(prune_rate=0.05),)
    assert first.extractor_settings == Lenet.Settings(width=16)
    assert other.extractor_settings == Lenet.Settings(width=32)


def test_a_task_overrides_single_keys_of_nested_tables(load: Load) -> None:
    text = (
        GOOD.replace("[training]", "[tasks.sparsifiers.rigl.schedule]\nstop = 0.5\n[training]")
        + "[sparsifiers.rigl.schedule]\nstop = 0.9\nstart = 0.1\n"
    )
    (task,) = load(text).tasks
    assert task.sparsifier_settings["rigl"] == (
        Rigl.Settings(schedule=Schedule(start=0.1, stop=0.5)),
    )
    with pytest.raises(ConfigError) as caught:
        load(text, ("start = 0.1", "start = '0.1'"), ("stop = 0.5", "stop = 'x'"))
    assert str(caught.value).splitlines() == [
        'x.toml:18: sparsifiers.rigl.schedule.start: should be a valid number, is "0.1"',
        'x.toml:13: tasks[0].sparsifiers.rigl.schedule.stop: should be a valid number, is "x"',
    ]


def test_lists_of_scalars_are_axes(load: Load) -> None:
    rigl = """
    [sparsifiers.rigl]
    exploration_frequency = [50, 200]
    prune_rate = [0.05, 0.5]
    keep_dense = ["conv_in.*", "conv_out.*"]
    """
    (task,) = load(GOOD + rigl).tasks
    keep = ("conv_in.*", "conv_out.*")
    assert task.sparsifier_settings["rigl"] == tuple(
        Rigl.Settings(exploration_frequency=frequency, prune_rate=rate, keep_dense=keep)
        for frequency in (50, 200)
        for rate in (0.05, 0.5)
    )


FROM = """
[sparsifiers.rigl]
prune_rate = 0.5
[[sparsifiers.rigl.from]]
sparsity = 0.9
prune_rate = 0.05
[[sparsifiers.rigl.from]]
sparsity = 0.75
exploration_frequency = [10, 20]
"""


def test_settings_from_a_sparsity_on(load: Load) -> None:
    """Each table is laid over those of lower sparsities, in whichever order they are written."""
    (task,) = load(GOOD + FROM).tasks
    assert task.sparsifier_settings["rigl"] == (Rigl.Settings(prune_rate=0.5),)
    assert task.settings_from == {
        "rigl": (
            SettingsFrom(
                0.75,
                tuple(Rigl.Settings(prune_rate=0.5, exploration_frequency=f) for f in (10, 20)),
            ),
            SettingsFrom(
                0.9,
                tuple(Rigl.Settings(prune_rate=0.05, exploration_frequency=f) for f in (10, 20)),
            ),
        )
    }


def test_a_task_and_a_preset_have_their_own_settings_from_a_sparsity_on(load: Load) -> None:
    own = "[[presets.cpu.sparsifiers.rigl.from]]\nsparsity = 0.5\nprune_rate = 0.1\n"
    (task,) = load(GOOD + FROM + own, preset="cpu").tasks
    assert task.settings_from == {
        "rigl": (SettingsFrom(0.5, (Rigl.Settings(prune_rate=0.1),)),),
    }


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("sparsity = 0.75", "sparsity = 0.9", "x.toml:21: sparsifiers.rigl.from[1].sparsity: is "
         "given twice; it should be the sparsity, between 0 and 1, from which on the settings of "
         "this table count"),
        ("sparsity = 0.75\n", "", "x.toml:20: sparsifiers.rigl.from[1].sparsity: is null; it "
         "should be the sparsity, between 0 and 1, from which on the settings of this table "
         "count"),
        ("sparsity = 0.75", "sparsity = 1", "x.toml:21: sparsifiers.rigl.from[1].sparsity: is 1; "
         "it should be the sparsity, between 0 and 1, from which on the settings of this table "
         "count"),
        ("prune_rate = 0.05", "prune_rate = 'x'", "x.toml:19: sparsifiers.rigl.from[0].prune_rate: "
         'should be a valid number, is "x"'),
        ("[[sparsifiers.rigl.from]]\nsparsity = 0.9\nprune_rate = 0.05\n"
         "[[sparsifiers.rigl.from]]\nsparsity = 0.75\nexploration_frequency = [10, 20]\n",
         "from = 0.9", "x.toml:17: sparsifiers.rigl.from: should be tables, each beginning with "
         "[[sparsifiers.rigl.from]]"),
    ],
)  # fmt: skip
def test_settings_from_a_sparsity_on_that_cannot_be(
    load: Load, old: str, new: str, problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(GOOD + FROM, (old, new))
    assert str(caught.value) == problem


@pytest.mark.parametrize("value", ["[0.9]", "{ x = 1 }", "2020-01-01", "true", "nan", '"0.9"'])
def test_settings_from_what_is_no_sparsity(load: Load, value: str) -> None:
    with pytest.raises(ConfigError, match="it should be the sparsity, between 0 and 1"):
        load(GOOD + FROM, ("sparsity = 0.9", f"sparsity = {value}"))


def test_an_axis_of_equal_dates(load: Load) -> None:
    with pytest.raises(ConfigError, match='"2020-01-01" is given twice'):
        load(GOOD + FROM, ("prune_rate = 0.05", "prune_rate = [2020-01-01, 2020-01-01]"))


def test_dense_alone_needs_no_sparsities(load: Load) -> None:
    dense = ('["dense", "static", "rigl"]', '["dense"]')
    assert load(GOOD, ("sparsities = [0.5, 0.9]\n", ""), dense).sparsities == ()


STATIC_ALONE = GOOD.replace('["dense", "static", "rigl"]', '["static"]')


def test_a_sparsifier_from_outside_the_file_joins_its_grid(load: Load) -> None:
    joined = load(STATIC_ALONE, also=("dense", "rigl", "static"))
    assert joined.sparsifiers == ("static", "dense", "rigl")
    assert joined.tasks[0].sparsifier_settings == {
        "static": (PluginSettings(),),
        "rigl": (Rigl.Settings(),),
    }
    assert joined.added == ("dense", "rigl")
    with_dense = load(STATIC_ALONE, also=("dense",))
    alone = load(STATIC_ALONE)
    assert with_dense == replace(alone, sparsifiers=("static", "dense"), added=("dense",))


def test_a_preset_may_compare_otherwise(load: Load) -> None:
    text = STATIC_ALONE + "[report]\nmargin = 0.1\n[presets.strict.report]\nmargin = 0.01\n"
    assert load(STATIC_ALONE).report.margin == 0.05
    assert load(text).report.margin == 0.1
    assert load(text, preset="strict").report.margin == 0.01
    with pytest.raises(ConfigError, match=r"report\.margin: should be greater than or equal to 0"):
        load(text, ("0.01", "-1"))
    same = [[cell.id for cell in cells(load(each))] for each in (text, STATIC_ALONE)]
    assert same[0] == same[1]


def test_a_sparsifier_that_joins_has_the_settings_that_the_file_has_for_it(load: Load) -> None:
    text = STATIC_ALONE + "[sparsifiers.rigl]\nprune_rate = [0.1, 0.2]\n"
    (task,) = load(text, also=("rigl",)).tasks
    assert task.sparsifier_settings["rigl"] == tuple(
        Rigl.Settings(prune_rate=rate) for rate in (0.1, 0.2)
    )
    with pytest.raises(ConfigError, match=r"sparsifiers\.rigl: nothing uses this table"):
        load(text)
    with pytest.raises(ConfigError) as caught:
        load(text, ("0.1", "2.0"), also=("rigl",))
    assert str(caught.value) == (
        "x.toml:15: sparsifiers.rigl.prune_rate: should be less than or equal to 1, is 2.0"
    )


def test_a_sparsifier_joins_the_preset_that_was_chosen_and_no_other(load: Load) -> None:
    presets = """
[presets.quick.sparsifiers.rigl]
exploration_frequency = 1
[presets.dense.grid]
sparsifiers = ["dense"]
sparsities = []
"""
    quick = load(STATIC_ALONE + presets, preset="quick", also=("rigl",))
    assert quick.tasks[0].sparsifier_settings["rigl"] == (Rigl.Settings(exploration_frequency=1),)
    assert load(STATIC_ALONE + presets, also=("rigl",)).sparsifiers == ("static", "rigl")
    with pytest.raises(ConfigError) as caught:
        load(STATIC_ALONE + presets, preset="dense", also=("rigl",))
    assert str(caught.value) == (
        "x.toml:19: presets.dense.grid.sparsities: is empty, but rigl would need at least one"
    )


def test_a_sparsifier_from_outside_the_file_that_is_unknown(load: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load(STATIC_ALONE, also=("rigel",))
    assert str(caught.value) == (
        "--only sparsifier=rigel: unknown sparsifier 'rigel'; did you mean 'rigl'? "
        "(known: dense, rigl, small-dense, static)"
    )


ALSO = """
[[evaluation.also]]
steps = 20
[[evaluation.also]]
steps = 100
"""


def test_other_ways_of_sampling_make_no_other_cells(load: Load) -> None:
    benchmark = load(GOOD + ALSO)
    assert benchmark.tasks[0].evaluation.also == ({"steps": 20}, {"steps": 100})
    assert [cell.id for cell in cells(benchmark)] == [cell.id for cell in cells(load(GOOD))]


def test_other_ways_of_sampling_that_cannot_be(load: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load(GOOD + ALSO, ("steps = 20", "step = 20"), ("steps = 100", "steps = 0"))
    assert str(caught.value) == (
        "x.toml:16: evaluation.also[0].step: no setting of how 'ldm' is sampled; did you mean "
        "'steps'? (known: steps)\n"
        "x.toml:18: evaluation.also[1].steps: should be greater than or equal to 1, is 0"
    )
    with pytest.raises(ConfigError, match="no setting of how 'ldm' is sampled"):
        load(GOOD + ALSO, ("steps = 20", "channels = [8]"))  # another network


TARGET = """
[[targets]]
model = "ldm"
dataset = "digits"
sparsifier = "static"
mean = 28.79
spread = 12.65
source = "arXiv 2504.21380"
[presets.small]
"""


def test_published_scores(load: Load) -> None:
    (target,) = load(GOOD + TARGET).targets
    assert (target.score, target.mean, target.spread) == ("fid", 28.79, 12.65)
    assert load(GOOD + TARGET, preset="small").targets == ()  # another experiment


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"ldm"\ndataset = "digits"\nsp', '"lmd"\ndataset = "digits"\nsp',
         "x.toml:16: targets[0].model: 'lmd' is not in this file; did you mean 'ldm'? (known: "
         "ldm)"),
        ('"digits"\nsp', '"digit"\nsp', "x.toml:17: targets[0].dataset: 'digit' is not in this "
         "file; did you mean 'digits'? (known: digits)"),
        ('er = "static"', 'er = "statik"', "x.toml:18: targets[0].sparsifier: 'statik' is not in "
         "this file; did you mean 'static'? (known: dense, rigl, static)"),
        ("mean", 'score = "fids"\nmean', "x.toml:19: targets[0].score: 'fids' is not in this file; "
         "did you mean 'fid'? (known: fid)"),
        ("spread", "spraed", "x.toml:20: targets[0].spraed: unknown key; did you mean 'spread'? "
         "(known: dataset, mean, model, score, scored_by, source, sparsifier, sparsity, spread)"),
    ],
)  # fmt: skip
def test_published_scores_of_what_is_not_there(
    load: Load, old: str, new: str, problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(GOOD + TARGET, (old, new))
    assert str(caught.value) == problem


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('name = "small"', 'name = "../small"', "x.toml:1: name: '../small' is not a name: use "
         "lower-case letters, digits, '_', '.' and '-', with a letter or digit first"),
        ('name = "small"', "", "x.toml: name: is missing; results are kept in a folder of this "
         "name"),
        ('name = "small"', 'nam = "small"', "x.toml: name: is missing; results are kept in a "
         "folder of this name\nx.toml:1: nam: unknown key; did you mean 'name'? "
         "(known: datasets, evaluation, execution, executors, extractors, grid, models, name, "
         "presets, report, sparsifiers, targets, tasks, tracking, training)"),
        ("seeds = [0, 1]", "seedz = [0, 1]", "x.toml:3: grid.seeds: is missing; at least one "
         "integer, such as [0, 1, 2]\n"
         "x.toml:4: grid.seedz: unknown key; did you mean "
         "'seeds'? (known: seeds, sparsifiers, sparsities)"),
        ("seeds = [0, 1]", "seeds = []", "x.toml:4: grid.seeds: is empty; it needs at least one"),
        ("seeds = [0, 1]\n", "", "x.toml:3: grid.seeds: is missing; at least one integer, such as "
         "[0, 1, 2]"),
        ("[0, 1]", "[0, 0]", "x.toml:4: grid.seeds: 0 is given twice; once would be right"),
        ("[0, 1]", "[-1]", "x.toml:4: grid.seeds[0]: should be greater than or equal to 0, is -1"),
        ("[0, 1]", "[true]", "x.toml:4: grid.seeds[0]: should be a valid integer, is true"),
        ("[0, 1]", "3", "x.toml:4: grid.seeds: should be a list, is 3; at least one integer, "
         "such as [0, 1, 2]"),
        ("[[tasks]]", "[tasks]", 'x.toml:8: tasks: should be a list, is {"model": "ldm", '
         '"dataset": "digits"}; at least one [[tasks]] with a model and a dataset'),
        ("0.9]", "1.2]", "x.toml:5: grid.sparsities[1]: should be less than 1, is 1.2"),
        ("0.9]", "1]", "x.toml:5: grid.sparsities[1]: should be less than 1, is 1"),
        ("0.9]", "-0.1]", "x.toml:5: grid.sparsities[1]: should be greater than or equal to 0, is "
         "-0.1"),
        ("0.9]", "nan]", "x.toml:5: grid.sparsities[1]: should be a finite number, is NaN"),
        ("0.9]", "'0.9']", 'x.toml:5: grid.sparsities[1]: should be a valid number, is "0.9"'),
        ("0.9]", "0.5]", "x.toml:5: grid.sparsities: 0.5 is given twice; once would be right"),
        ("[0.5, 0.9]", "[]", "x.toml:5: grid.sparsities: is empty, but static, rigl would need at "
         "least one"),
        ("sparsities = [0.5, 0.9]\n", "", "x.toml:3: grid.sparsities: is empty, but static, rigl "
         "would need at least one"),
        ('["dense", "static", "rigl"]', "[]", "x.toml:6: grid.sparsifiers: is empty; it needs at "
         "least one"),
        ('"static", "rigl"', '"rigl", "rigl"', 'x.toml:6: grid.sparsifiers: "rigl" is given twice; '
         "once would be right"),
        ('"rigl"]', '"rigel"]', "x.toml:6: grid.sparsifiers[2]: unknown sparsifier 'rigel'; "
         "did you mean 'rigl'? (known: dense, rigl, small-dense, static)"),
        ('"ldm"', '"ldn"', "x.toml:9: tasks[0].model: unknown model 'ldn'; did you mean 'ldm'? "
         "(known: ldm)"),
        ('"digits"', '"faces"', "x.toml:10: tasks[0].dataset: unknown dataset 'faces'; "
         "known: digits, sketches"),
        ('"digits"', '"sketches"', "x.toml:10: tasks[0].dataset: 'sketches' is a dataset of "
         "sketches, but 'ldm' takes images"),
        ('dataset = "digits"', "", "x.toml:8: tasks[0].dataset: is missing; a dataset, by "
         "its plugin's name"),
        ('dataset =', "datset =", "x.toml:8: tasks[0].dataset: is missing; a dataset, by "
         "its plugin's name\n"
         "x.toml:10: tasks[0].datset: unknown key; did you mean 'dataset'? (known: dataset, "
         "datasets, evaluation, extractors, model, models, sparsifiers, training)"),
        ('[[tasks]]\nmodel = "ldm"\ndataset = "digits"', "", "x.toml: tasks: is missing; at least "
         "one [[tasks]] with a model and a dataset"),
        ("steps = 10", "stepz = 10", "x.toml:13: training.stepz: unknown key; did you mean "
         "'steps'? (known: batch_size, betas, budget, channels_last, checkpoint_every, "
         "checkpoint_minutes, decay_every, decay_factor, ema_decay, ema_warmup, gradient_clip, "
         "kernels, learning_rate, learning_rate_schedule, log_every, "
         "micro_batches, momentum, optimizer, precision, steps, warmup_steps, weight_decay)"),
        ("steps = 10", "steps = 0", "x.toml:13: training.steps: should be greater than or equal to "
         "1, is 0"),
        ("steps = 10", 'steps = "10"', 'x.toml:13: training.steps: should be a valid integer, is '
         '"10"'),
        ("steps = 10", 'precision = "fp16"', "x.toml:13: training.precision: should be 'fp32' or "
         "'bf16', is \"fp16\""),
        ("[training]\nsteps = 10", "training = 3", 'x.toml:12: tasks[0].training: should be '
         "a table, is 3"),
        ("steps = 10", "learning_rate = inf", "x.toml:13: training.learning_rate: should be a "
         "finite number, is Infinity"),
    ],
)  # fmt: skip
def test_one_wrong_thing(load: Load, old: str, new: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(GOOD, (old, new))
    assert str(caught.value) == problem


@pytest.mark.parametrize(
    ("tables", "problem"),
    [
        ("[sparsifiers.rigl]\nprune_rat = 0.1", "x.toml:15: sparsifiers.rigl.prune_rat: unknown "
         "key; did you mean 'prune_rate'? (known: exploration_frequency, keep_dense, prune_rate, "
         "schedule)"),
        ("[sparsifiers.rigl]\nprune_rate = [0.1, 2.0]", "x.toml:15: sparsifiers.rigl.prune_rate: "
         "should be less than or equal to 1, is 2.0"),
        ("[sparsifiers.rigl]\nprune_rate = [0.1, 0.1]", "x.toml:15: sparsifiers.rigl.prune_rate: "
         "0.1 is given twice; once would be right"),
        ("[sparsifiers.rigl]\nprune_rate = []", "x.toml:15: sparsifiers.rigl.prune_rate: is an "
         "empty list; name at least one value"),
        ("[sparsifiers.rigl.schedule]\nstopp = 1.0", "x.toml:15: sparsifiers.rigl.schedule.stopp: "
         "unknown key; did you mean 'stop'? (known: start, stop)"),
        ("[sparsifiers.rigel]", "x.toml:14: sparsifiers.rigel: nothing uses this table; "
         "did you mean 'rigl'? (known: rigl, static)"),
        ("[sparsifiers.dense]", "x.toml:14: sparsifiers.dense: nothing uses this table; "
         "known: rigl, static"),
        ("[models.ldm2]", "x.toml:14: models.ldm2: nothing uses this table; did you mean 'ldm'? "
         "(known: ldm)"),
        ("[datasets.sketches]", "x.toml:14: datasets.sketches: nothing uses this table; "
         "known: digits"),
        ("[extractors.lenet]", "x.toml:14: extractors.lenet: nothing uses this table; "
         "known: inception"),
        ("[models.ldm]\nchannels = [1, 2, 3, 4, 5]", "x.toml:14: models.ldm: at most four levels "
         "of channels fit the latents"),
        ("[models.ldm]\nchannels = [1, 'a']", "x.toml:15: models.ldm.channels[1]: should be a "
         'valid integer, is "a"'),
        ("[models]\nldm = 3", "x.toml:15: models.ldm: should be a table, is 3"),
        ("[evaluation]\nextractor = 'lenett'", "x.toml:15: evaluation.extractor: unknown feature "
         "extractor 'lenett'; did you mean 'lenet'? (known: inception, lenet)"),
        ("[[tasks]]\nmodel = 'ldm'\ndataset = 'digits'\n[tasks.models.ldm]\nstep = 1",
         "x.toml:18: tasks[1].models.ldm.step: unknown key; did you mean 'steps'? "
         "(known: channels, steps)"),
        ("[[tasks]]\nmodel = 'ldm'\ndataset = 'digits'\n[tasks.models.ldn]",
         "x.toml:17: tasks[1].models.ldn: nothing uses this table; did you mean 'ldm'? "
         "(known: ldm)"),
    ],
)  # fmt: skip
def test_a_wrong_table(load: Load, tables: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(GOOD + tables)
    assert str(caught.value) == problem


PRESETS = (
    GOOD
    + """\
batch_size = 8

[models.ldm]
channels = [16, 32]

[evaluation]
extractor = "inception"

[[tasks]]
model = "ldm"
dataset = "digits"
[tasks.training]
steps = 20
learning_rate = 1e-3

[sparsifiers.rigl]
prune_rate = [0.05, 0.5]

[presets.cpu.grid]
seeds = [7]
sparsifiers = ["dense", "rigl"]

[presets.cpu.training]
steps = 2

[presets.cpu.models.ldm]
steps = 3

[presets.cpu.sparsifiers.rigl]
exploration_frequency = 1

[presets.cpu.evaluation]
extractor = "lenet"

[presets.cpu.extractors.lenet]
width = 4

[presets.tiny]
training = { batch_size = 1 }
"""
)


def test_a_preset_wins_over_the_file_and_over_every_task(load: Load) -> None:
    cpu = load(PRESETS, preset="cpu")
    assert (cpu.name, cpu.seeds, cpu.sparsities) == ("small-cpu", (7,), (0.5, 0.9))
    assert cpu.sparsifiers == ("dense", "rigl")
    first, second = cpu.tasks
    assert first.training == TrainingSettings(steps=2, batch_size=8)
    assert second.training == TrainingSettings(steps=2, batch_size=8, learning_rate=1e-3)
    assert first.model_settings == Ldm.Settings(channels=(16, 32), steps=3)
    assert first.sparsifier_settings == {
        "rigl": tuple(
            Rigl.Settings(prune_rate=rate, exploration_frequency=1) for rate in (0.05, 0.5)
        )
    }
    assert first.evaluation == EvaluationSettings(extractor="lenet")
    assert first.extractor_settings == Lenet.Settings(width=4)


def test_presets_that_are_not_chosen_change_nothing(load: Load) -> None:
    assert load(PRESETS) == load(PRESETS[: PRESETS.index("[presets.cpu.grid]")])
    tiny = load(PRESETS, preset="tiny")
    assert (tiny.name, tiny.seeds, len(tiny.tasks)) == ("small-tiny", (0, 1), 2)
    assert [task.training.batch_size for task in tiny.tasks] == [1, 1]
    assert [task.training.steps for task in tiny.tasks] == [10, 20]


def test_a_table_that_only_a_preset_uses(load: Load) -> None:
    text = PRESETS + "[extractors.lenet]\nwidth = 2\n"
    assert load(text).tasks[0].extractor_settings == PluginSettings()
    assert load(text, preset="cpu").tasks[0].extractor_settings == Lenet.Settings(width=4)


EXECUTION = """
[execution]
executor = "farm"
minutes_per_cell = 5
[executors.farm]
acres = 3
[executors.barn]
"""


def test_where_cells_are_run(load: Load) -> None:
    benchmark = load(GOOD + EXECUTION)
    assert benchmark.execution == ExecutionSettings(executor="farm", minutes_per_cell=5)
    assert {name: vars(settings) for name, settings in benchmark.executors.items()} == {
        "farm": {"acres": 3}, "barn": {"burnt": False},
    }  # fmt: skip
    assert cells(benchmark) == cells(load(GOOD))
    preset = load(GOOD + EXECUTION + "[presets.big.executors.farm]\nacres = 4\n", preset="big")
    assert vars(preset.executors["farm"]) == {"acres": 4}


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"farm"', '"fram"', "x.toml:16: execution.executor: unknown executor 'fram'; did you mean "
         "'farm'? (known: barn, farm)"),
        ("acres", "akres", "x.toml:19: executors.farm.akres: unknown key; did you mean 'acres'? "
         "(known: acres)"),
        (".barn", ".bran", "x.toml:20: executors.bran: unknown executor 'bran'; did you mean "
         "'barn'? (known: barn, farm)"),
        (".barn]", ".barn]\nburnt = true", "x.toml:20: executors.barn: its validation failed: "
         "KeyError: 'hay'"),
        ("= 5", "= 0", "x.toml:17: execution.minutes_per_cell: should be greater than 0, is 0"),
    ],
)  # fmt: skip
def test_an_execution_that_is_wrong(load: Load, old: str, new: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(GOOD + EXECUTION, (old, new))
    assert str(caught.value) == problem


TRACKING = """
[tracking]
trackers = ["radio", "diary"]
[tracking.diary]
lines = 3
"""


def test_what_is_told_of_a_run(load: Load) -> None:
    benchmark = load(GOOD + TRACKING)
    assert benchmark.trackers == {"radio": {}, "diary": {"lines": 3}}
    assert cells(benchmark) == cells(load(GOOD))
    quiet = load(GOOD + TRACKING + "[presets.quiet.tracking]\ntrackers = []\n", preset="quiet")
    assert quiet.trackers == {}
    more = "[presets.more.tracking.diary]\nlines = 4\n"
    assert load(GOOD + TRACKING + more, preset="more").trackers["diary"] == {"lines": 4}


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"radio"', '"raido"', "x.toml:16: tracking.trackers[0]: unknown tracker 'raido'; did you "
         "mean 'radio'? (known: diary, radio)"),
        ('"radio"', '"diary"', "x.toml:16: tracking.trackers: should name each once"),
        ('trackers = ["radio", "diary"]', "", "x.toml:17: tracking.diary: nothing uses this table; "
         "there are none"),
        ("lines", "lies", "x.toml:18: tracking.diary.lies: unknown key; did you mean 'lines'? "
         "(known: lines)"),
        ("lines = 3", "lines = 0", "x.toml:18: tracking.diary.lines: should be greater than or "
         "equal to 1, is 0"),
        ("trackers =", "tracker =", "x.toml:16: tracking.tracker: unknown key; did you mean "
         "'trackers'? (known: trackers)"),
    ],
)  # fmt: skip
def test_a_tracking_that_is_wrong(load: Load, old: str, new: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(GOOD + TRACKING, (old, new))
    assert str(caught.value) == problem


def test_an_unknown_preset(load: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load(PRESETS, preset="cpuu")
    assert str(caught.value) == (
        "x.toml: unknown preset 'cpuu'; did you mean 'cpu'? (known: cpu, tiny)"
    )
    with pytest.raises(ConfigError) as caught:
        load(GOOD, preset="cpu")
    assert str(caught.value) == "x.toml: unknown preset 'cpu'; there are none"


@pytest.mark.parametrize(
    ("tables", "problem"),
    [
        ("[presets.cpu.training]\nstepz = 1", "x.toml:15: presets.cpu.training.stepz: unknown key; "
         "did you mean 'steps'? (known: batch_size, betas, budget, channels_last, "
         "checkpoint_every, checkpoint_minutes, decay_every, decay_factor, ema_decay, "
         "ema_warmup, gradient_clip, "
         "kernels, learning_rate, learning_rate_schedule, log_every, "
         "micro_batches, momentum, optimizer, precision, steps, warmup_steps, weight_decay)"),
        ("[presets.cpu.trainin]\nsteps = 1", "x.toml:14: presets.cpu.trainin: unknown key; did you "
         "mean 'training'? (known: datasets, evaluation, execution, executors, extractors, grid, "
         "models, report, sparsifiers, tracking, training)"),
        ("[presets.cpu.grid]\nseedz = [1]", "x.toml:15: presets.cpu.grid.seedz: unknown key; did "
         "you mean 'seeds'? (known: seeds, sparsifiers, sparsities)"),
        ("[presets.cpu.grid]\nsparsities = []", "x.toml:15: presets.cpu.grid.sparsities: is empty, "
         "but static, rigl would need at least one"),
        ("[presets.cpu.grid]\nsparsifiers = ['rigel']", "x.toml:15: "
         "presets.cpu.grid.sparsifiers[0]: unknown sparsifier 'rigel'; did you mean 'rigl'? "
         "(known: dense, rigl, small-dense, static)"),
        ("[presets.cpu]\ngrid = 3", "x.toml:15: presets.cpu.grid: should be a table, is 3"),
        ("[presets]\ncpu = 3", "x.toml:15: presets.cpu: should be a table, is 3"),
        ("[presets.CPU]", "x.toml:14: presets.CPU: 'CPU' is not a name: use lower-case letters, "
         "digits, '_', '.' and '-', with a letter or digit first"),
        ("[presets.cpu.models.ldn]", "x.toml:14: presets.cpu.models.ldn: nothing uses this table; "
         "did you mean 'ldm'? (known: ldm)"),
        ("[presets.cpu.grid]\nsparsifiers = ['static']\n[presets.cpu.sparsifiers.rigl]",
         "x.toml:16: presets.cpu.sparsifiers.rigl: nothing uses this table; known: static"),
        ("[presets.cpu.evaluation]\nextractor = 'lenett'", "x.toml:15: "
         "presets.cpu.evaluation.extractor: unknown feature extractor 'lenett'; did you mean "
         "'lenet'? (known: inception, lenet)"),
        ("[presets.cpu.models.ldm]\nsteps = 0", "x.toml:15: presets.cpu.models.ldm.steps: should "
         "be greater than or equal to 1, is 0"),
    ],
)  # fmt: skip
def test_a_wrong_preset_that_was_not_chosen(load: Load, tables: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(GOOD + tables)
    assert str(caught.value) == problem


# Plugins that fail


class Picky(DynamicSparsifier):
    name = "picky"

    class Settings(DynamicSparsifier.Settings):
        group: int = 4

    def __init__(self, sparsity: float, **settings: Any) -> None:
        super().__init__(sparsity, **settings)
        if sparsity * self.settings.group % 1:
            raise SparsityError(f"not possible with group = {self.settings.group}")

    def growth_scores(self, *_: Any) -> Any: ...


class Odd:
    """No JSON schema tells what a list of it means."""


class Moody:
    name = "moody"

    class Settings(PluginSettings):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        moon: float = Field(default_factory=lambda: 1 / 0)
        odd: Odd | None = None
        phase: int = 0


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds plugins that fail, each in its way."""
    listing = [
        *PLUGINS.listing,
        Plugin("picky", "sparsifier", "fake", "1.0", "ok", cls=Picky),
        Plugin("moody", "sparsifier", "fake", "1.0", "ok", cls=Moody),
        Plugin("sad", None, "sad", "0.1", "broken", "no", error=ImportError("no")),
    ]
    monkeypatch.setattr(PLUGINS, "listing", listing)


@pytest.mark.usefixtures("failing")
@pytest.mark.parametrize(
    ("old", "table", "kind", "settings"),
    [
        ('"ldm"', "models", "model", "model_settings"),
        ('"digits"', "datasets", "dataset", "dataset_settings"),
        ("steps = 10", "extractors", "feature extractor", "extractor_settings"),
    ],
)
def test_a_broken_plugin_takes_settings_as_they_are_written(
    load: Load, old: str, table: str, kind: str, settings: str
) -> None:
    text = GOOD + f"[{table}.sad]\nmoon = [1, 2]\n[{table}.sad.sea]\ntide = 'low'\n"
    new = '[evaluation]\nextractor = "sad"' if kind == "feature extractor" else '"sad"'
    (task,) = load(text, (old, new)).tasks
    written = {"moon": [1, 2], "sea": {"tide": "low"}}
    assert getattr(task, settings).model_dump(mode="json") == written
    assert task.versions[kind] == "sad 0.1"


@pytest.mark.usefixtures("failing")
def test_a_broken_sparsifier_takes_settings_as_they_are_written(load: Load) -> None:
    text = GOOD.replace('"static"', '"sad"') + "[sparsifiers.sad]\nprune_rate = [0.1, 0.2]\n"
    (task,) = load(text).tasks
    (settings,) = task.sparsifier_settings["sad"]
    assert settings.model_dump(mode="json") == {"prune_rate": [0.1, 0.2]}
    (task,) = load(GOOD, also=("sad",)).tasks
    assert [s.model_dump() for s in task.sparsifier_settings["sad"]] == [{}]


@pytest.mark.usefixtures("failing")
def test_settings_that_fail_are_taken_as_they_are_written_and_hide_no_error(load: Load) -> None:
    text = GOOD.replace('"static"', '"moody"')
    tables = "[sparsifiers.moody]\nphase = [1, 2]\nodd = ['half']\n"
    (task,) = load(text + tables).tasks
    assert [each.model_dump(mode="json") for each in task.sparsifier_settings["moody"]] == [
        {"phase": 1, "odd": ["half"]},
        {"phase": 2, "odd": ["half"]},
    ]
    with pytest.raises(ConfigError) as caught:
        load(text + tables, ("steps = 10", "steps = 0"))
    assert str(caught.value) == (
        "x.toml:13: training.steps: should be greater than or equal to 1, is 0"
    )


@pytest.mark.usefixtures("failing")
def test_a_sparsity_that_a_sparsifier_refuses_is_an_error_of_the_file(load: Load) -> None:
    text = GOOD.replace('"static"', '"picky"')
    tables = """
[[tasks]]
model = "ldm"
dataset = "digits"
[tasks.sparsifiers.picky]
group = 10
[presets.fine.grid]
sparsities = [0.75]
[presets.odd.grid]
sparsities = [0.3]
"""
    with pytest.raises(ConfigError) as caught:
        load(text + tables)
    assert str(caught.value).splitlines() == [
        "x.toml:5: grid.sparsities[1]: picky: not possible with group = 4",
        "x.toml:21: presets.fine.grid.sparsities[0]: picky: not possible with group = 10",
        "x.toml:23: presets.odd.grid.sparsities[0]: picky: not possible with group = 4",
    ]
    assert load(text, ("0.9]", "0.75]")).sparsities == (0.5, 0.75)
    # What joins from outside may be selected at some of the sparsities, and fails at the others.
    assert load(GOOD, also=("picky",)).sparsities == (0.5, 0.9)


def test_a_value_that_is_no_json_can_be_wrong_too(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Settings(PluginSettings):
        folder: Annotated[Path, Field(max_length=1)] = Path("moon")

    monkeypatch.setattr(Digits, "Settings", Settings)
    with pytest.raises(ConfigError, match=r'datasets\.digits\.folder: .* is "moon"'):
        load(GOOD)


def test_several_problems_are_reported_together(load: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load(GOOD, ("[0, 1]", "[-1]"), ("0.9]", "1.2]"))
    assert str(caught.value).splitlines() == [
        "x.toml:4: grid.seeds[0]: should be greater than or equal to 0, is -1",
        "x.toml:5: grid.sparsities[1]: should be less than 1, is 1.2",
    ]


def test_a_problem_of_the_file_is_reported_once_for_all_tasks(load: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load(GOOD + '[[tasks]]\nmodel = "ldm"\ndataset = "digits"\n', ("= 10", "= 0"))
    assert str(caught.value) == (
        "x.toml:13: training.steps: should be greater than or equal to 1, is 0"
    )


def test_toml_that_does_not_parse(load: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load("name = \n")
    assert str(caught.value) == (
        "x.toml: this is not valid TOML: Invalid value (at line 1, column 8): name ="
    )


def test_a_missing_file(load: Load) -> None:
    load(GOOD)
    with pytest.raises(ConfigError) as caught:
        load_benchmark(Path("y.toml"), PLUGINS)
    assert str(caught.value) == (
        "y.toml: no such file; benchmarks in that folder: did you mean 'x.toml'? (known: x.toml)"
    )


def test_a_missing_folder() -> None:
    with pytest.raises(ConfigError) as caught:
        load_benchmark(Path("nowhere/y.toml"), PLUGINS)
    assert str(caught.value) == (
        f"{Path('nowhere/y.toml')}: no such file; benchmarks in that folder: there are none"
    )


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_benchmark(tmp_path, PLUGINS)
    assert str(caught.value) == f"{tmp_path}: this is a folder; a benchmark is a TOML file"


@pytest.mark.timeout(60)
def test_a_pipe_or_a_device(tmp_path: Path) -> None:
    """Opening the one would wait, reading the other would not end."""
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "link.toml").symlink_to("/dev/zero")
    for name, kind in {"pipe.toml": "a pipe", "link.toml": "a device"}.items():
        with pytest.raises(ConfigError) as caught:
            load_benchmark(tmp_path / name, PLUGINS)
        assert str(caught.value) == f"{tmp_path / name}: cannot be read: {kind}, no regular file"


def test_a_huge_file(tmp_path: Path) -> None:
    with (tmp_path / "x.toml").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigError, match=r"cannot be read: more than the 4,194,304 bytes"):
        load_benchmark(tmp_path / "x.toml", PLUGINS)


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes('name = "x"\n# naïve\n'.encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        load_benchmark(path, PLUGINS)
    assert str(caught.value) == f"{path}:2: this is not UTF-8, as TOML must be"


def test_a_narrower_dense_network_is_there_at_each_sparsity(load: Load) -> None:
    benchmark = load(GOOD, ('"rigl"]', '"small-dense"]'))
    (task,) = benchmark.tasks
    methods = task.methods("small-dense", benchmark.sparsities)
    assert [(each.model_dump(), sparsity) for each, sparsity in methods] == [({}, 0.5), ({}, 0.9)]
    names = [(cell.sparsifier, cell.sparsity) for cell in cells(benchmark) if cell.seed == 0]
    assert names == [
        ("dense", 0.0),
        ("static", 0.5),
        ("static", 0.9),
        ("small-dense", 0.5),
        ("small-dense", 0.9),
    ]


def test_a_model_without_narrower_networks(load: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load(GOOD + "[models.ldm]\nchannels = [1]\n", ('"rigl"]', '"small-dense"]'))
    first, second = str(caught.value).splitlines()
    assert first == (
        "x.toml:5: grid.sparsities[0]: small-dense: it takes a narrower network, and model 'ldm' "
        "has none for its settings (see Model.narrower)"
    )
    assert "grid.sparsities[1]" in second
