"""Cells whose layers are computed from their active weights alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kernels_here import with_kernels
from torch import nn

from dstbench.contracts import Model, Workspace
from dstbench.execution import training
from dstbench.execution.pipeline import Pipeline
from dstbench.execution.scheduler import Scheduler
from dstbench.execution.worker import RunOptions
from dstbench.grid import Cell
from dstbench.kernels import Choice
from dstbench.kernels.choice import DEFAULT_THRESHOLDS
from dstbench.plugins.registry import Plugins
from dstbench.records import Record
from dstbench.store import CellFolder, Store

MakeCell = Callable[..., Cell]
Run = Callable[..., tuple[Record, CellFolder]]

ALL = "sparse in 3 of 3 layers that they take"


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def run(plugins: Plugins, workspace: Workspace, tmp_path: Path) -> Run:
    """Runs a cell in a folder, and returns its record and its folder."""

    def run(cell: Cell, folder: str = "a", seconds: float = 0) -> tuple[Record, CellFolder]:
        place = Store(tmp_path / folder)
        options = RunOptions(measure_seconds=seconds)
        (record,) = Scheduler(place, Pipeline(plugins, workspace), options).run([cell])
        return record, place.cell(cell)

    return run


@pytest.fixture
def sparse_cell(make_cell: MakeCell) -> Callable[..., Cell]:
    def sparse_cell(kernels: str = "sparse", **changed: Any) -> Cell:
        settings = {"exploration_frequency": 3, "distribution": "uniform"}
        changed |= {"kernels": kernels}
        return make_cell("rigl", 0.5, sparsifier_settings=settings, training=changed)

    return sparse_cell


def thresholds_of(density: float, monkeypatch: pytest.MonkeyPatch) -> Choice:
    """Let these be measured on this machine."""
    found = dict.fromkeys(DEFAULT_THRESHOLDS, (density, density, density))
    monkeypatch.setattr(training, "choice_of_machine", lambda mode: Choice(mode, found))
    return Choice("sparse", found)


def test_another_choice_of_kernels_is_another_cell(make_cell: MakeCell) -> None:
    cells = [
        make_cell("rigl", 0.5, training={"kernels": each}) for each in ("auto", "masked", "sparse")
    ]
    assert len({cell.id for cell in cells}) == 3
    assert make_cell("rigl", 0.5).id == cells[0].id


@with_kernels
def test_a_record_tells_of_kernels(
    run: Run, sparse_cell: Callable[..., Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = thresholds_of(0.25, monkeypatch)
    record, _ = run(sparse_cell(), seconds=5)
    assert record.kernels == choice.to_json()
    assert record.measurement is not None
    assert record.measurement.kernels == ALL
    assert record.sizes is not None
    masked, _ = run(sparse_cell("masked"), seconds=5)
    assert masked.measurement is not None
    assert masked.sizes is not None
    assert masked.measurement.kernels == "masked dense"
    # Of 720 weights half are active, and held alone; an update holds all, and their gradients. Then
    # there are two indices of four bytes each, and where blocks begin.
    held = masked.sizes.state_bytes - 5 * 4 * 360 + 2 * 4 * 720
    indices = record.sizes.state_bytes - held
    assert 8 * 360 < indices < 8 * 360 + 1000
    assert record.sizes.model_bytes == masked.sizes.model_bytes


def test_a_dense_cell_has_none(run: Run, make_cell: MakeCell) -> None:
    record, _ = run(make_cell(training={"kernels": "sparse"}))
    assert record.kernels is None


@with_kernels
def test_sampling_goes_through_the_same_kernels(
    run: Run,
    sparse_cell: Callable[..., Cell],
    plugins: Plugins,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model: type[Model] = plugins.find("model", "toy-net")
    original, sampled = model.sample, []

    def sample(self: Model, denoiser: nn.Module, *arguments: Any) -> Any:
        sampled.extend(type(each) for each in denoiser if isinstance(each, nn.Conv2d))
        return original(self, denoiser, *arguments)

    monkeypatch.setattr(model, "sample", sample)
    run(sparse_cell("masked"))
    assert set(sampled) == {nn.Conv2d}
    sampled.clear()
    run(sparse_cell("sparse"))
    assert len(set(sampled)) == 1
    assert nn.Conv2d not in sampled


@pytest.fixture
def killed_at(plugins: Plugins, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Ends the process of a training at its n-th batch, once."""
    model: type[Model] = plugins.find("model", "toy-net")
    original = model.loss
    left = [0]

    def loss(self: Model, *arguments: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return original(self, *arguments)

    monkeypatch.setattr(model, "loss", loss)

    def killed_at(batch: int) -> None:
        left[0] = batch

    return killed_at


@with_kernels
def test_a_stopped_cell_goes_on_by_the_thresholds_of_its_checkpoint(
    run: Run,
    sparse_cell: Callable[..., Cell],
    monkeypatch: pytest.MonkeyPatch,
    killed_at: Callable[[int], None],
) -> None:
    cell = sparse_cell(checkpoint_every=4)
    first = thresholds_of(0.25, monkeypatch)
    whole, whole_folder = run(cell, "whole")
    killed_at(8)
    with pytest.raises(Killed):
        run(cell, "parts")
    thresholds_of(0.75, monkeypatch)  # measured meanwhile
    torch.manual_seed(123456)
    resumed, folder = run(cell, "parts")
    assert resumed.kernels == first.to_json()
    changing = {"started", "times", "environment"}
    assert resumed.model_dump(exclude=changing) == whole.model_dump(exclude=changing)
    for name in ("denoiser.safetensors", "samples.npy"):
        assert (folder.path / name).read_bytes() == (whole_folder.path / name).read_bytes()


@with_kernels
def test_a_stored_cell_is_sampled_by_the_kernels_that_drew_its_scored_samples(
    run: Run, sparse_cell: Callable[..., Cell], plugins: Plugins, workspace: Workspace
) -> None:
    _, folder = run(sparse_cell())
    kept = np.load(folder.path / "samples.npy")
    data, samples = Pipeline(plugins, workspace).sample(folder, len(kept))
    images = data.to_images(samples).permute(0, 2, 3, 1)
    assert np.array_equal(images.numpy(), kept)
