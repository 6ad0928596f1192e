"""What goes wrong around one cell costs that cell, and is named."""

import errno
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dstbench import hookimpl
from dstbench.contracts import Model, Workspace
from dstbench.execution import room
from dstbench.execution.scheduler import Scheduler
from dstbench.grid import Cell
from dstbench.plugins.registry import Plugins
from dstbench.records import Record
from dstbench.store import CellFolder, Store

MakeCell = Callable[..., Cell]


@pytest.fixture
def at_step(plugins: Plugins) -> Iterator[Callable[[int, Callable[[Cell], object]], None]]:
    """Has something happen after a step of each cell."""
    listeners: list[Any] = []

    def at_step(number: int, happen: Callable[[Cell], object]) -> None:
        class Listener:
            @hookimpl
            def dstbench_step(self, cell: Cell, step: int) -> None:
                if step == number:
                    happen(cell)

        listeners.append(Listener())
        plugins.manager.register(listeners[-1])

    yield at_step
    for each in listeners:
        plugins.manager.unregister(each)


def statuses(records: list[Record]) -> dict[str, str]:
    return {record.cell.sparsifier: record.status for record in records}


def test_facts_that_are_not_finite_cost_nothing(
    scheduler: Scheduler, make_cell: MakeCell, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy: type[Model] = plugins.find("model", "toy-net")
    monkeypatch.setattr(toy, "metadata", lambda self: {"nan": math.nan, "inf": math.inf})
    (record,) = scheduler.run([make_cell()])
    assert record.status == "done"
    assert record.metadata["inf"] == math.inf
    assert not scheduler.store.is_open(make_cell())


def test_facts_that_no_record_can_hold_fail_the_cell_and_keep_its_checkpoint(
    scheduler: Scheduler, make_cell: MakeCell, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy: type[Model] = plugins.find("model", "toy-net")
    monkeypatch.setattr(toy, "metadata", lambda self: {"tensor": torch.zeros(3)})
    (record,) = scheduler.run([make_cell()])
    assert record.status == "failed"
    assert "metadata.tensor" in (record.error or "")
    assert scheduler.store.cell(make_cell()).checkpoint.exists()
    monkeypatch.undo()
    (record,) = scheduler.run([make_cell()])
    assert record.status == "done"


def test_a_folder_that_is_removed_costs_its_cell(
    scheduler: Scheduler,
    make_cell: MakeCell,
    at_step: Callable[..., None],
    texts: list[str],
) -> None:
    cells = [make_cell("static", 0.5), make_cell()]
    at_step(7, lambda cell: shutil.rmtree(scheduler.store.cell(cells[0]).path, ignore_errors=True))
    records = scheduler.run(cells)
    assert statuses(records)["dense"] == "done"
    assert statuses(records)["static"] == "failed"


def test_results_that_are_moved_away(
    scheduler: Scheduler, make_cell: MakeCell, at_step: Callable[..., None], tmp_path: Path
) -> None:
    cells = [make_cell("static", 0.5), make_cell()]

    def move(cell: Cell) -> None:
        if cell == cells[0] and not (tmp_path / "moved").exists():
            (tmp_path / "results").rename(tmp_path / "moved")

    at_step(7, move)
    records = scheduler.run(cells)
    assert statuses(records)["dense"] == "done"


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full(*_: Any) -> None:
    raise FULL


@pytest.mark.parametrize("write", ["write_denoiser", "write_images", "write_checkpoint"])
def test_a_disk_that_fills_up_is_told_in_a_line(
    scheduler: Scheduler, make_cell: MakeCell, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    original = getattr(CellFolder, write)

    def fill(self: CellFolder, *rest: Any) -> Any:
        return full() if "static" in self.path.name else original(self, *rest)

    monkeypatch.setattr(CellFolder, write, fill)
    records = scheduler.run([make_cell("static", 0.5), make_cell()])
    assert statuses(records) == {"static": "failed", "dense": "done"}
    (failed, _) = records
    assert failed.error is not None
    assert failed.error.startswith(f"{scheduler.store.folder}: No space left on device (")
    assert failed.error == failed.reason


def test_a_record_that_cannot_be_written_costs_its_cell(
    scheduler: Scheduler, make_cell: MakeCell, monkeypatch: pytest.MonkeyPatch, texts: list[str]
) -> None:
    original = CellFolder.write_record

    def fill(self: CellFolder, record: Record) -> None:
        return full() if "static" in self.path.name else original(self, record)

    monkeypatch.setattr(CellFolder, "write_record", fill)
    cells = [make_cell("static", 0.5), make_cell()]
    assert statuses(scheduler.run(cells)) == {"dense": "done"}
    path = scheduler.store.cell(cells[0]).path
    assert any(
        text.startswith(f"{path}: cannot be written to: No space left on device") for text in texts
    )


def test_a_disk_that_is_too_small_is_told_before_anything_is_trained(
    scheduler: Scheduler, make_cell: MakeCell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "free_bytes", lambda path: 1000)
    (record,) = scheduler.run([make_cell()])
    assert record.status == "failed"
    assert "0 MiB are free, but checkpoints of this cell take" in record.reason
    assert "--results" in record.reason
    assert record.error == record.reason
    assert not scheduler.store.cell(make_cell()).history.exists()


def test_a_network_of_which_nothing_is_active_is_not_trained(
    scheduler: Scheduler, make_cell: MakeCell
) -> None:
    cells = [make_cell("static", 0.999999), make_cell()]
    records = scheduler.run(cells)
    assert statuses(records) == {"static": "failed", "dense": "done"}
    assert "none of the 720 sparsifiable weights would be active" in records[0].reason
    assert not scheduler.store.cell(cells[0]).history.exists()


def test_a_damaged_cache_changes_no_score(
    scheduler: Scheduler, make_cell: MakeCell, tmp_path: Path, workspace: Workspace
) -> None:
    (before,) = scheduler.run([make_cell()])
    (features,) = workspace.cache.root.glob("features-*/features.safetensors")
    content = bytearray(features.read_bytes())
    content[-5] ^= 0x40
    features.write_bytes(content)
    other = Scheduler(Store(tmp_path / "other"), scheduler.pipeline)
    (after,) = other.run([make_cell()])
    assert after.scores == before.scores


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def become_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("table", ["history.csv", "topology.csv"])
@pytest.mark.parametrize(
    "harm",
    [
        flip,
        lambda path: path.write_bytes(b""),
        Path.unlink,
        become_a_pipe,
        become_a_folder,
        Path.touch,
    ],
)
def test_a_damaged_table_of_an_unfinished_cell_is_as_its_checkpoint_has_it(
    scheduler: Scheduler,
    make_cell: MakeCell,
    at_step: Callable[..., None],
    tmp_path: Path,
    texts: list[str],
    table: str,
    harm: Callable[[Path], None],
) -> None:
    cell = make_cell(
        "rigl",
        0.5,
        training={"checkpoint_every": 8, "log_every": 2},
        sparsifier_settings={"exploration_frequency": 2},
    )
    ways = iter([False, True, False])

    def fail(_: Cell) -> None:
        if next(ways):
            raise RuntimeError("stopped")

    at_step(11, fail)
    elsewhere = Scheduler(Store(tmp_path / "elsewhere"), scheduler.pipeline)
    (whole,) = elsewhere.run([cell])
    (begun,) = scheduler.run([cell])
    assert (whole.status, begun.status) == ("done", "failed")
    path = scheduler.store.cell(cell).path / table
    harm(path)
    (done,) = scheduler.run([cell])
    assert done.status == "done"

    def rows(folder: CellFolder) -> list[list[str]]:
        lines = (folder.path / table).read_text().splitlines()
        times = 2 if table == "history.csv" else None
        return [[*row.split(",")[:times]] for row in lines]

    assert rows(scheduler.store.cell(cell)) == rows(elsewhere.store.cell(cell))
    named = f"{path}: damaged; it is as it was saved again"
    assert texts.count(named) == (harm is not Path.touch)


def test_the_estimate_of_a_checkpoint_is_near(
    scheduler: Scheduler, make_cell: MakeCell, at_step: Callable[..., None]
) -> None:
    sizes: dict[str, int] = {}

    def note(cell: Cell) -> None:
        sizes[cell.sparsifier] = scheduler.store.cell(cell).checkpoint.stat().st_size

    at_step(12, note)
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 1, 3))
    from dstbench.execution.checkpoint import checkpoint_bytes

    scheduler.run([make_cell(training={"checkpoint_every": 11})])
    assert checkpoint_bytes(network, None) == pytest.approx(sizes["dense"], abs=12000)
