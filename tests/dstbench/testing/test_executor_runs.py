"""The cells that executors are checked with."""

import shutil
from pathlib import Path
from threading import Thread

from dstbench.grid import Cell
from dstbench.testing.checks.executors import RunCellSpy


def wait_for_a_beat(calls: Path) -> None:
    """Until a call has just renewed its note."""
    times: set[int] = set()
    while len(times) < 3:
        times |= {note.stat().st_mtime_ns for note in calls.iterdir()}


def test_a_call_that_outlives_its_check_brings_no_folder_back(tmp_path: Path) -> None:
    notes = tmp_path / "check"
    (notes / "calls").mkdir(parents=True)
    (notes / "first").touch()  # so that the call stays
    spy = RunCellSpy(notes / "results", notes, harness=("another machine", 0))
    cell = Cell(model="stays", dataset="none", sparsifier="dense", sparsity=0, seed=0)
    call = Thread(target=spy, args=(cell,))
    call.start()
    wait_for_a_beat(notes / "calls")
    (notes / "calls").rename(tmp_path / "over")
    shutil.rmtree(notes)
    call.join(timeout=30)
    assert not call.is_alive()
    assert not notes.exists()
