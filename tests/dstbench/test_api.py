"""The front door in Python, with the toys."""

import math
import subprocess
import sys
from csv import DictReader
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import Field
from torch import Tensor

import dstbench
from dstbench.contracts import Executor, PluginSettings
from dstbench.errors import ConfigError, PluginError, StoreError
from dstbench.sparsity import DynamicSparsifier, Layer


class Rightmost(DynamicSparsifier):
    """Grow at the highest index."""

    name = "rightmost"

    class Settings(DynamicSparsifier.Settings):
        strength: float = Field(1.0, description="a factor of all scores, which changes nothing")

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        scores = torch.arange(layer.weight.numel(), dtype=torch.float)
        return self.settings.strength * scores.view_as(layer.weight)


def benchmark(**changes: Any) -> dict[str, Any]:
    tables: dict[str, Any] = {
        "name": "toys",
        "grid": {"seeds": [0, 1], "sparsities": [0.5], "sparsifiers": ["dense", "static"]},
        "tasks": [{"model": "toy-net", "dataset": "toy-images"}],
        "training": {"steps": 12, "batch_size": 6, "log_every": 5, "learning_rate": 0.01},
        "evaluation": {"extractor": "toy-features", "samples": 9, "kid_subsets": 2},
    }
    return tables | changes


AWAY = {
    "model": "toy-net",
    "dataset": "toy-images",
    "datasets": {"toy-images": {"away": "person"}},
}
"""A task whose data is not there."""

GIVEN = benchmark(
    grid={"seeds": [0], "sparsities": [0.5], "sparsifiers": ["dense", "rightmost"]},
    sparsifiers={"rightmost": {"exploration_frequency": 4}},
)


@pytest.fixture(autouse=True)
def folder(toys_installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_is_light() -> None:
    heavy = ("torch", "pandas", "pydantic", "pluggy", "numpy", "importlib.metadata")
    code = f"import sys, dstbench; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_that_it_offers_is_there() -> None:
    assert {name for name in dstbench.__all__ if hasattr(dstbench, name)} == set(dstbench.__all__)
    with pytest.raises(AttributeError, match="module 'dstbench' has no attribute 'ran'"):
        _ = dstbench.ran  # type: ignore[attr-defined]


def test_a_run_and_its_results_loaded_again(folder: Path) -> None:
    ran = dstbench.run(benchmark())
    assert repr(ran) == f"Results({'results/toys'!r}: 4 done)"
    assert [record.status for record in ran.records] == ["done"] * 4
    loaded = dstbench.load_results(folder / "results" / "toys")
    assert {r.cell.id: r for r in loaded.records} == {r.cell.id: r for r in ran.records}
    assert ran.table.to_csv(index=False) == Path("results/toys/leaderboard.csv").read_text()
    assert ran.text() in (folder / "results" / "toys" / "leaderboard.md").read_text()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("record.json")}
    assert dstbench.run(benchmark()).records == ran.records
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("record.json")}


def test_a_file_and_a_dictionary_are_the_same_benchmark(folder: Path) -> None:
    (folder / "toys.toml").write_text(
        """
name = "toys"
grid = { seeds = [0, 1], sparsities = [0.5], sparsifiers = ["dense", "static"] }
tasks = [{ model = "toy-net", dataset = "toy-images" }]
training = { steps = 12, batch_size = 6, log_every = 5, learning_rate = 0.01 }
evaluation = { extractor = "toy-features", samples = 9, kid_subsets = 2 }
"""
    )
    planned = dstbench.plan(benchmark())
    for path in ("toys.toml", Path("toys.toml")):
        pd.testing.assert_frame_equal(dstbench.plan(path), planned)


def test_one_row_per_cell() -> None:
    cells = dstbench.run(benchmark()).cells
    assert list(cells["sparsifier"]) == ["dense", "dense", "static", "static"]
    assert list(cells["seed"]) == [0, 1, 0, 1]
    assert (cells["status"] == "done").all()
    assert cells["fid"].notna().all()
    assert (cells["active_sparsifiable"] / cells["sparsifiable"]).tolist() == [1.0, 1.0, 0.5, 0.5]


def test_cells_and_comparisons_are_files_too(folder: Path) -> None:
    ran = dstbench.run(benchmark(tasks=[*benchmark()["tasks"], AWAY]))
    files = folder / "results" / "toys"
    done = ran.cells[ran.cells["status"] == "done"]
    assert 0 < len(done) < len(ran.cells)
    read = list(DictReader((files / "cells.csv").read_text().splitlines()))
    assert [row["cell"] for row in read] == list(done.index)
    for column in ("fid", "kid", "recall", "seed", "training_seconds", "step_time_low"):
        values = [float(row[column] or "nan") for row in read]
        np.testing.assert_array_equal(values, done[column].to_numpy(dtype=float))
    assert ran.comparisons.to_csv(index=False) == (files / "comparisons.csv").read_text()
    fid = done.pivot(index="seed", columns="method", values="fid")
    (line,) = ran.comparisons.query("score == 'fid'").to_dict("records")
    assert line["difference"] == pytest.approx((fid["static"] - fid["dense"]).mean())
    assert line["margin"] == pytest.approx(0.05 * fid["dense"].mean())


def test_results_compared_otherwise(folder: Path) -> None:
    dstbench.run(benchmark(report={"margin": 0.5}))
    where = folder / "results" / "toys"
    dense = dstbench.load_results(where).table["fid_mean"][0]
    for given, margin in ({}, 0.5), ({"margin": 0.25}, 0.25):
        line = dstbench.load_results(where, **given).comparisons.iloc[0]
        assert line["margin"] == pytest.approx(margin * dense)
    assert len(dstbench.load_results(where, against="static").comparisons) == 0
    with pytest.raises(ConfigError, match="nothing can be compared with 'rigl'"):
        dstbench.load_results(where, against="rigl").text()


def test_the_history_and_samples_of_a_cell() -> None:
    ran = dstbench.run(benchmark(), only="sparsifier=static", skip=["seed=1"])
    (record,) = ran.records
    history = ran.history(record.cell)
    assert list(history["step"]) == [5, 10, 12]
    assert np.isfinite(history["loss"]).all()
    samples = ran.samples(record.cell.id)
    assert (samples.dtype, samples.shape) == (np.uint8, (9, 4, 4, 1))
    topology = ran.topology(record.cell)
    assert list(topology.columns) == ["step", "layer", "density", "changed"]
    folder = ran.folder / "cells" / record.cell.id
    for name, look in (("history.csv", ran.history), ("topology.csv", ran.topology)):
        (folder / name).write_text("")
        with pytest.raises(StoreError, match=f"{name}: cannot be read: its content is not what"):
            look(record.cell)


def test_a_cell_that_is_not_there() -> None:
    ran = dstbench.run(benchmark(), only=["sparsifier=dense", "seed=0"])
    name = ran.records[0].cell.id
    with pytest.raises(StoreError) as caught:
        ran.samples(name[:-1])
    assert str(caught.value) == (
        f"results/toys: no cell '{name[:-1]}'; did you mean '{name}'? (known: {name})"
    )


def test_a_cell_that_was_never_trained() -> None:
    away = benchmark(datasets={"toy-images": {"away": "person"}})
    ran = dstbench.run(away, only="seed=0")
    assert [record.status for record in ran.records] == ["skipped", "skipped"]
    assert list(ran.cells["reason"]) == ["ask the toymaker"] * 2
    for look in (ran.history, ran.samples):
        with pytest.raises(StoreError, match="not there; the cell was"):
            look(ran.records[0].cell)


def test_no_results(folder: Path) -> None:
    with pytest.raises(StoreError, match="no records here"):
        dstbench.load_results("results/nothing")


def test_what_is_wrong_with_a_dictionary_is_told_by_its_keys() -> None:
    with pytest.raises(ConfigError) as caught:
        dstbench.run(benchmark(training={"step": 12}))
    assert str(caught.value).startswith(
        "benchmark: training.step: unknown key; did you mean 'steps'?"
    )


def test_jobs_are_of_the_local_executor() -> None:
    with pytest.raises(ConfigError, match="--jobs is of executor 'local', not of 'here'"):
        dstbench.run(benchmark(), executor="here", jobs=2)


@pytest.mark.parametrize("jobs", [None, 2])
def test_a_class_takes_part_without_a_package(jobs: int | None, folder: Path) -> None:
    ran = dstbench.run(GIVEN, plugins=[Rightmost], jobs=jobs)
    assert [record.status for record in ran.records] == ["done", "done"]
    assert ran.records[1].topology_updates == 2  # after steps 4 and 8; exploration stops at 9
    name, version = ran.records[1].cell.versions["sparsifier"].split()
    assert (name, len(version)) == (__name__, 12)
    assert dstbench.run(GIVEN, plugins=[Rightmost]).records == ran.records


def test_a_class_that_changed_makes_other_cells() -> None:
    cells = [
        set(dstbench.plan(GIVEN, plugins=[cls], only="sparsifier=rightmost").index)
        for cls in (Rightmost, Rightmost, changed())
    ]
    assert cells[0] == cells[1] != cells[2]


def changed() -> type[DynamicSparsifier]:
    class Rightmost(DynamicSparsifier):
        """Grow at the lowest index."""

        name = "rightmost"

        def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
            return -torch.arange(layer.weight.numel()).view_as(layer.weight)

    return Rightmost


class Nothing(Executor):
    """Runs no cell."""

    name = "nothing"

    def run(self, run_cell: Any, cells: Any) -> Any:
        return iter(())


def test_an_executor_can_be_given_too() -> None:
    assert dstbench.run(benchmark(), executor="nothing", plugins=[Nothing]).records == []


@pytest.mark.parametrize("wrong", [int, PluginSettings, 3])
def test_what_is_no_plugin(wrong: Any) -> None:
    with pytest.raises(PluginError, match="is no plugin: a class derived from one of Model, "):
        dstbench.run(benchmark(), plugins=[wrong])


def test_an_installed_class_may_be_given_as_well() -> None:
    from toys import Leftmost

    planned = dstbench.plan(benchmark(), only="sparsifier=leftmost", plugins=[Leftmost])
    pd.testing.assert_frame_equal(planned, dstbench.plan(benchmark(), only="sparsifier=leftmost"))


def test_two_of_one_name() -> None:
    with pytest.raises(PluginError, match="two plugins are called sparsifier 'rightmost'"):
        dstbench.run(GIVEN, plugins=[Rightmost, changed()])


def test_a_plan_has_one_row_per_cell() -> None:
    planned = dstbench.plan(benchmark(), skip="seed=1")
    assert list(planned["sparsifier"]) == ["dense", "static"]
    assert planned.index.name == "cell"
    # The toys tell nothing before they are loaded.
    assert all(math.isnan(value) for value in planned["training_flops"].astype(float))
    assert planned["problem"].str.contains("does not tell the shape").all()
