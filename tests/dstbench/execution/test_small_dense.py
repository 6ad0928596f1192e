"""A cell of a narrower dense network, from its training to its export."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toys import ToyImages, ToyWidths

import dstbench
from dstbench.contracts import Items, Workspace
from dstbench.counting.counts import Network
from dstbench.counting.counts import measure as count_network
from dstbench.execution import parts
from dstbench.execution.pipeline import Pipeline
from dstbench.execution.scheduler import Scheduler
from dstbench.execution.worker import RunOptions
from dstbench.grid import Cell
from dstbench.planning.planner import plan
from dstbench.plugins.registry import Plugins
from dstbench.records import Record
from dstbench.store import CellFolder, Store

MakeCell = Callable[..., Cell]


@pytest.fixture
def run(
    plugins: Plugins, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Cell], tuple[Record, CellFolder]]:
    """Runs a cell, and returns its record and its folder; plans know its data."""
    plugins.add(ToyWidths)
    monkeypatch.setattr(ToyImages, "outline", lambda self: Items((1, 4, 4)))

    def run(cell: Cell) -> tuple[Record, CellFolder]:
        store = Store(tmp_path / "results")
        options = RunOptions(measure_seconds=2)
        (record,) = Scheduler(store, Pipeline(plugins, workspace), options).run([cell])
        assert record.status == "done", record.error
        return record, store.cell(cell)

    return run


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of parameters of each network that is traced."""
    found: list[int] = []

    def measure(*arguments: Any) -> Network:
        network = count_network(*arguments)
        found.append(network.parameters)
        return network

    monkeypatch.setattr(parts, "measure", measure)
    return found


def of_widths(cell: Cell) -> Cell:
    return cell.model_copy(update={"model": "toy-widths", "model_settings": {"width": 8}})


def test_networks_are_counted_once_for_all_cells_that_have_them(
    plugins: Plugins, workspace: Workspace, make_cell: MakeCell, tmp_path: Path, counted: list[int]
) -> None:
    plugins.add(ToyWidths)
    cells = [make_cell(seed=0), make_cell(seed=1), make_cell("small-dense", 0.75)]
    pipeline = Pipeline(plugins, workspace)
    records = Scheduler(Store(tmp_path / "results"), pipeline).run([*map(of_widths, cells)])
    assert counted == [737, 225]
    assert [record.counts.active_parameters for record in records if record.counts] == [
        737, 737, 225
    ]  # fmt: skip


def test_its_record_is_relative_to_the_whole_network(
    run: Callable[..., Any], make_cell: MakeCell, plugins: Plugins
) -> None:
    record, _ = run(of_widths(make_cell("small-dense", 0.75)))
    dense, _ = run(of_widths(make_cell()))
    counts, whole = record.counts, dense.counts
    assert record.narrowed == {"dropout": 0.2, "width": 4}
    assert (counts.parameters, counts.sparsifiable) == (737, 720)
    assert (counts.active_parameters, counts.active_sparsifiable) == (225, 216)
    assert counts.dense_inference_flops == whole.inference_flops
    assert counts.dense_training_flops == whole.training_flops
    assert counts.inference_flops == 16 * 216
    assert counts.training_flops == 3 * 16 * 216 * 6 * 12
    assert record.sizes.dense_state_bytes == dense.sizes.state_bytes
    assert record.sizes.dense_model_bytes == dense.sizes.model_bytes
    assert record.sizes.state_bytes < 0.4 * dense.sizes.state_bytes
    assert record.measurement.kernels == "dense"
    assert record.measurement.update is None
    assert record.kernels is None
    (planned,) = plan([record.cell], plugins)
    assert planned.counts == counts
    assert planned.kept_bytes == record.sizes.model_bytes


def test_it_is_trained_as_that_narrow_network_is(
    run: Callable[..., Any], make_cell: MakeCell
) -> None:
    _, folder = run(of_widths(make_cell("small-dense", 0.75)))
    dense = make_cell().model_copy(update={"model": "toy-widths", "model_settings": {"width": 4}})
    _, narrow = run(dense)
    for name in ("denoiser.safetensors", "samples.npy"):
        assert (folder.path / name).read_bytes() == (narrow.path / name).read_bytes()


def test_it_is_sampled_from_and_exported(
    run: Callable[..., Any],
    make_cell: MakeCell,
    plugins: Plugins,
    workspace: Workspace,
    tmp_path: Path,
) -> None:
    _, folder = run(of_widths(make_cell("small-dense", 0.5)))
    kept = torch.from_numpy(np.load(folder.samples)).permute(0, 3, 1, 2)
    _, again = Pipeline(plugins, workspace).sample(folder, 9)
    assert torch.equal(torch.as_tensor(again), kept)
    dstbench.export_model(folder.path, tmp_path / "out", plugins=[ToyWidths])
    model = dstbench.load_model(tmp_path / "out", plugins=[ToyWidths])
    assert torch.equal(model.sample(9), kept)
