"""From a benchmark to its cells."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstbench.contracts import PluginSettings
from dstbench.errors import ConfigError
from dstbench.grid import Cell
from dstbench.grid.benchmark import Benchmark, SettingsFrom, Task
from dstbench.grid.expansion import cells
from dstbench.grid.variants import variants
from dstbench.settings import EvaluationSettings, TrainingSettings


class Rigl(PluginSettings):
    prune_rate: float = 0.3


TASK = Task(
    model="ldm",
    dataset="digits",
    model_settings=PluginSettings(),
    dataset_settings=PluginSettings(),
    sparsifier_settings={
        "static": (PluginSettings(),),
        "rigl": (Rigl(prune_rate=0.05), Rigl(prune_rate=0.5)),
    },
    extractor_settings=PluginSettings(),
    training=TrainingSettings(),
    evaluation=EvaluationSettings(),
)
BENCHMARK = Benchmark(
    name="small",
    seeds=(0, 1),
    sparsities=(0.5, 0.9),
    sparsifiers=("static", "dense", "rigl"),
    tasks=(TASK,),
)


def test_the_cells_and_their_order() -> None:
    other = replace(TASK, dataset="faces")
    grid = cells(replace(BENCHMARK, tasks=(TASK, other)))
    assert [
        (c.dataset, c.seed, c.sparsifier, c.sparsifier_settings.get("prune_rate"), c.sparsity)
        for c in grid
    ] == [
        (dataset, seed, *method)
        for dataset in ("digits", "faces")
        for seed in (0, 1)
        for method in (
            ("dense", None, 0.0),
            ("static", None, 0.5),
            ("static", None, 0.9),
            ("rigl", 0.05, 0.5),
            ("rigl", 0.05, 0.9),
            ("rigl", 0.5, 0.5),
            ("rigl", 0.5, 0.9),
        )
    ]


def test_settings_of_high_sparsities() -> None:
    """Two rates up to 0.5, three from 0.75 on, one from 0.9 on."""
    task = replace(
        TASK,
        settings_from={
            "rigl": (
                SettingsFrom(0.75, tuple(Rigl(prune_rate=rate) for rate in (0.1, 0.2, 0.3))),
                SettingsFrom(0.9, (Rigl(prune_rate=0.01),)),
            )
        },
    )
    sparsities = (0.5, 0.75, 0.95)
    rates = [(each.model_dump()["prune_rate"], S) for each, S in task.methods("rigl", sparsities)]
    first = [(0.05, 0.5), (0.1, 0.75), (0.01, 0.95)]
    assert rates == [*first, (0.5, 0.5), (0.2, 0.75), (0.3, 0.75)]
    assert [S for _, S in task.methods("static", sparsities)] == [*sparsities]
    assert list(task.methods("set", sparsities)) == []
    grid = cells(replace(BENCHMARK, seeds=(0,), sparsities=sparsities, tasks=(task,)))
    assert len(grid) == 1 + 3 + 6


def test_every_setting_of_a_cell_is_spelled_out() -> None:
    cell = cells(BENCHMARK)[0]
    assert cell.training == TrainingSettings().model_dump(mode="json")
    assert cell.evaluation == EvaluationSettings().model_dump(mode="json")
    assert Cell.model_validate_json(cell.model_dump_json()).id == cell.id


@given(steps=st.integers(1, 1000), seed=st.integers(0, 10))
def test_ids_differ_exactly_where_settings_do(steps: int, seed: int) -> None:
    def first_id(steps: int, seed: int) -> str:
        task = replace(TASK, training=TrainingSettings(steps=steps))
        return cells(replace(BENCHMARK, seeds=(seed,), tasks=(task,)))[0].id

    assert first_id(steps, seed) == first_id(steps, seed)
    assert first_id(steps, seed) != first_id(steps + 1, seed)
    assert first_id(steps, seed) != first_id(steps, seed + 1)


def with_settings(training: dict[str, int], evaluation: dict[str, int]) -> Task:
    return replace(
        TASK,
        training=TrainingSettings(**training),
        evaluation=EvaluationSettings(**evaluation),
    )


@pytest.mark.parametrize(
    ("training", "evaluation"),
    [
        ({"log_every": 7}, {}),
        ({"checkpoint_every": 7}, {}),
        ({"checkpoint_minutes": 7}, {}),
        ({}, {"batch_size": 7}),
    ],
)
def test_what_does_not_change_the_result_does_not_change_the_id(
    training: dict[str, int], evaluation: dict[str, int]
) -> None:
    other = with_settings(training, evaluation)
    first, second = (cells(replace(BENCHMARK, tasks=(task,)))[0] for task in (TASK, other))
    assert first != second
    assert first.id == second.id
    with pytest.raises(ConfigError, match="comes up more than once"):
        cells(replace(BENCHMARK, tasks=(TASK, other)))


@pytest.mark.parametrize(
    ("training", "evaluation"),
    [({"batch_size": 7}, {}), ({"micro_batches": 2}, {}), ({}, {"samples": 7})],
)
def test_what_does_change_the_result_changes_the_id(
    training: dict[str, int], evaluation: dict[str, int]
) -> None:
    tasks = (TASK, with_settings(training, evaluation))
    first, second = (cells(replace(BENCHMARK, tasks=(task,)))[0] for task in tasks)
    assert first.id != second.id


VERSIONS = {"model": "lab 1.0", "dataset": "dstbench 0.1", "feature extractor": "dstbench 0.1"}


def test_a_cell_has_the_versions_of_the_plugins_that_make_it() -> None:
    task = replace(TASK, versions=VERSIONS, sparsifier_versions={"static": "s 2", "rigl": "r 3"})
    grid = cells(replace(BENCHMARK, seeds=(0,), sparsities=(0.5,), tasks=(task,)))
    assert [(cell.sparsifier, cell.versions) for cell in grid] == [
        ("dense", VERSIONS),
        ("static", VERSIONS | {"sparsifier": "s 2"}),
        ("rigl", VERSIONS | {"sparsifier": "r 3"}),
        ("rigl", VERSIONS | {"sparsifier": "r 3"}),
    ]


@pytest.mark.parametrize("kind", VERSIONS)
def test_another_version_of_a_plugin_is_another_cell(kind: str) -> None:
    old, new = (
        cells(replace(BENCHMARK, tasks=(replace(TASK, versions=versions),)))
        for versions in (VERSIONS, VERSIONS | {kind: "lab 2.0"})
    )
    assert not {cell.id for cell in old} & {cell.id for cell in new}
    assert set(variants([*old, *new]).values()) >= {"lab 2.0"}


def test_another_version_of_a_sparsifier_makes_cells_of_its_own_alone() -> None:
    old, new = (
        cells(replace(BENCHMARK, tasks=(replace(TASK, sparsifier_versions={"rigl": version}),)))
        for version in ("lab 1.0", "lab 2.0")
    )
    changed = [a.sparsifier for a, b in zip(old, new, strict=True) if a.id != b.id]
    assert changed == [cell.sparsifier for cell in old if cell.sparsifier == "rigl"]


def test_a_cell_without_versions_has_none_in_its_identity() -> None:
    (cell, *_) = cells(BENCHMARK)
    stored = cell.model_dump(mode="json", exclude={"versions"})
    assert Cell.model_validate(stored).id == cell.id
    assert "versions" not in cell.identity


def test_a_changed_extractor_setting_changes_the_id() -> None:
    other = replace(TASK, extractor_settings=Rigl())
    assert cells(BENCHMARK)[0].id != cells(replace(BENCHMARK, tasks=(other,)))[0].id


def test_without_dense() -> None:
    grid = cells(replace(BENCHMARK, sparsifiers=("static",), seeds=(0,)))
    assert [(c.sparsifier, c.sparsity) for c in grid] == [("static", 0.5), ("static", 0.9)]


def test_the_same_cell_twice_is_an_error() -> None:
    with pytest.raises(ConfigError) as caught:
        cells(replace(BENCHMARK, tasks=(TASK, TASK)))
    dense = cells(BENCHMARK)[0]
    assert str(caught.value) == (
        f"benchmark 'small': cell {dense.id} comes up more than once; "
        "tasks and the values of an axis must differ from each other"
    )


def test_variants_name_the_settings_that_vary_within_a_task_and_sparsifier() -> None:
    slow = replace(TASK, training=TrainingSettings(learning_rate=1e-5))
    one, two = (
        [(cell.sparsifier, text) for cell, text in zip(grid, variants(grid).values(), strict=True)]
        for grid in (
            cells(replace(BENCHMARK, sparsities=(0.5,), seeds=(0,))),
            cells(replace(BENCHMARK, sparsifiers=("dense",), seeds=(0,), tasks=(TASK, slow))),
        )
    )
    assert one == [
        ("dense", ""),
        ("static", ""),
        ("rigl", "prune_rate=0.05"),
        ("rigl", "prune_rate=0.5"),
    ]
    assert two == [("dense", "learning_rate=0.0001"), ("dense", "learning_rate=1e-05")]


def test_a_cell_that_says_nothing_of_later_settings_is_the_one_it_was() -> None:
    plain = EvaluationSettings()
    said = plain.model_dump(mode="json")
    assert said.keys().isdisjoint({"sampling_seeds", "metrics", "resamples"})
    assert EvaluationSettings(**said) == plain
    other = EvaluationSettings(sampling_seeds=(0, 3), metrics=("fid",), resamples=0)
    assert EvaluationSettings(**other.model_dump(mode="json")) == other
    assert (plain.noises, EvaluationSettings(sampling_seeds=3).noises) == ((0,), (0, 1, 2))
    for wrong in ({"sampling_seeds": ()}, {"sampling_seeds": (1, 1)}, {"metrics": ("fid", "fid")}):
        with pytest.raises(ValueError, match=r"at least one, and each once"):
            EvaluationSettings(**wrong)
