"""A trained toy against its dense twin."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import dstbench
from dstbench.contracts import Model
from dstbench.execution import pipeline
from dstbench.execution.measurement import measure_against_dense
from dstbench.execution.pipeline import Pipeline
from dstbench.execution.scheduler import Scheduler
from dstbench.execution.timing import ENOUGH_ROUNDS
from dstbench.execution.worker import RunOptions
from dstbench.grid import Cell
from dstbench.plugins.registry import Plugins
from dstbench.store import Store

MakeCell = Callable[..., Cell]
RIGL = {"sparsifier_settings": {"exploration_frequency": 3}, "training": {"steps": 12}}


@pytest.fixture
def run(plugins: Plugins, workspace: Any, tmp_path: Path) -> Callable[..., Any]:
    """Runs a cell, and returns its record and its folder."""

    def run(cell: Cell, seconds: float) -> Any:
        place = Store(tmp_path / f"{seconds}")
        options = RunOptions(measure_seconds=seconds)
        (record,) = Scheduler(place, Pipeline(plugins, workspace), options).run([cell])
        return record, place.cell(cell)

    return run


def test_a_sparse_cell_is_timed_against_its_dense_twin(
    run: Callable[..., Any], make_cell: MakeCell
) -> None:
    record, _ = run(make_cell("rigl", 0.5, **RIGL), 10)
    found = record.measurement
    for ratio in (found.step, found.sample):
        assert 0 < ratio.low <= ratio.ratio <= ratio.high
        assert ratio.rounds >= 3
    assert found.kernels == "masked dense"
    assert found.threads == torch.get_num_threads()
    assert 1 <= found.samples <= 9
    assert found.update is not None
    assert found.update.interval == 6  # two updates in twelve steps, after the third and sixth
    assert found.update.per_step == found.update.dense_steps / 6


@pytest.mark.parametrize(("affordable", "samples"), [(1, 16), (37, 32), (10**6, 40)])
def test_a_sampling_call_is_of_whole_vectors_where_it_is_of_fewer_samples(
    run: Callable[..., Any],
    make_cell: MakeCell,
    monkeypatch: pytest.MonkeyPatch,
    affordable: int,
    samples: int,
) -> None:
    def timed(*arguments: Any, seconds: float, **others: Any) -> Any:
        calls = 2 * (1 + ENOUGH_ROUNDS)
        others["seconds_per_sample"] = seconds / 2 / calls / (affordable + 0.5)
        return measure_against_dense(*arguments, seconds=seconds, **others)

    monkeypatch.setattr(pipeline, "measure_against_dense", timed)
    record, _ = run(make_cell("rigl", 0.5, evaluation={"samples": 40}, **RIGL), 0.4)
    assert record.measurement.samples == samples


def test_both_see_the_same_batches(
    run: Callable[..., Any], make_cell: MakeCell, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: type[Model] = plugins.find("model", "toy-net")
    original, seen = model.batch, []

    def batch(self: Model, split: Any, indices: Tensor) -> Any:
        if split == "train":
            seen.append(indices.tolist())
        return original(self, split, indices)

    monkeypatch.setattr(model, "batch", batch)
    record, _ = run(make_cell("static", 0.5), 10)
    measured = seen[12:]
    assert len(measured) == 2 * (1 + record.measurement.step.rounds)
    assert measured[::2] == measured[1::2]


def test_nothing_that_is_kept_depends_on_it(run: Callable[..., Any], make_cell: MakeCell) -> None:
    cell = make_cell("rigl", 0.5, **RIGL)
    torch.manual_seed(1)
    plain, measured = run(cell, 0), run(cell, 10)
    assert plain[0].measurement is None
    changing = {"started", "times", "measurement", "environment"}
    assert plain[0].model_dump(exclude=changing) == measured[0].model_dump(exclude=changing)
    for name in ("denoiser.safetensors", "samples.npy"):
        assert (plain[1].path / name).read_bytes() == (measured[1].path / name).read_bytes()


def test_listeners_do_not_hear_of_it(
    plugins: Plugins, run: Callable[..., Any], make_cell: MakeCell
) -> None:
    class Listener:
        heard: list[int]

        @dstbench.hookimpl
        def dstbench_topology_updated(self, step: int) -> None:
            self.heard.append(step)

    listener = Listener()
    listener.heard = []
    plugins.manager.register(listener)
    run(make_cell("rigl", 0.5, **RIGL), 10)
    assert listener.heard == [3, 6]


def test_what_a_method_remembers_is_counted(
    plugins: Plugins,
    run: Callable[..., Any],
    make_cell: MakeCell,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cell, kind = make_cell("rigl", 0.5, **RIGL), plugins.find("sparsifier", "rigl")
    plain, _ = run(cell, 0)
    original = kind.state_dict
    remembered = {"momenta": {"weight": torch.zeros(3)}, "latest": [torch.zeros(2)], "name": "x"}
    monkeypatch.setattr(kind, "state_dict", lambda self: original(self) | remembered)
    remembering, _ = run(cell, 0.1)
    assert remembering.sizes.state_bytes == plain.sizes.state_bytes + 5 * 4


def test_a_dense_cell_has_no_twin(run: Callable[..., Any], make_cell: MakeCell) -> None:
    record, _ = run(make_cell(), 10)
    assert record.measurement is None
    assert record.sizes.state_bytes == record.sizes.dense_state_bytes


def test_a_measurement_that_fails_costs_the_cell_nothing(
    run: Callable[..., Any], make_cell: MakeCell, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: type[Model] = plugins.find("model", "toy-net")
    original, calls = model.sample, []

    def sample(self: Model, *arguments: Any) -> Tensor:
        calls.append(arguments)
        if len(calls) > 1:
            raise ZeroDivisionError("once is enough")
        samples: Tensor = original(self, *arguments)
        return samples

    monkeypatch.setattr(model, "sample", sample)
    record, _ = run(make_cell("static", 0.5), 10)
    assert (record.status, record.measurement) == ("done", None)


def test_a_benchmark_says_for_how_long(toys_installed: Path, tmp_path: Path) -> None:
    benchmark: dict[str, Any] = {
        "name": "timed",
        "grid": {"seeds": [0], "sparsities": [0.5], "sparsifiers": ["dense", "leftmost"]},
        "tasks": [{"model": "toy-net", "dataset": "toy-images"}],
        "training": {"steps": 12, "batch_size": 6},
        "evaluation": {"extractor": "toy-features", "samples": 9, "kid_subsets": 2},
    }
    found = dstbench.run(benchmark, results=tmp_path / "a")
    assert [bool(record.measurement) for record in found.records] == [False, True]
    assert found.table["step_time_ratio"].notna().tolist() == [False, True]
    assert {"fid_vs_step_time.png", "fid_vs_sample_time.png"} <= {
        path.name for path in found.folder.iterdir()
    }
    untimed = benchmark | {"execution": {"measure_seconds": 0}}
    again = dstbench.run(untimed, results=tmp_path / "a")
    assert again.records == found.records  # it is no part of what a cell is
    found = dstbench.run(untimed, results=tmp_path / "b")
    assert [record.measurement for record in found.records] == [None, None]
