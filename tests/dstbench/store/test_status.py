"""What has become of the cells of a results folder."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from dstbench.errors import StoreError
from dstbench.grid import Cell
from dstbench.records import Record
from dstbench.store import CellFolder, Store
from dstbench.store.status import statuses

MakeRecord = Callable[..., Record]
MakeCell = Callable[..., Cell]


@pytest.fixture
def place(tmp_path: Path) -> Store:
    return Store(tmp_path / "toys")


def asked(place: Store, cell: Cell) -> CellFolder:
    folder = place.cell(cell)
    folder.request(cell)
    return folder


def test_every_state(place: Store, make_cell: MakeCell, make_record: MakeRecord) -> None:
    done, failed, waiting = make_cell(), make_cell("static", 0.5), make_cell("static", 0.9)
    asked(place, done).write_record(make_record().model_copy(update={"cell": done}))
    error = "Traceback\n  …\nOSError: disk full\n"
    record = make_record(status="failed", error=error).model_copy(update={"cell": failed})
    asked(place, failed).write_record(record)
    asked(place, waiting)
    found = {each.cell.id: (each.state, each.detail) for each in statuses(place)}
    assert found == {
        done.id: ("done", ""),
        failed.id: ("failed", "OSError: disk full"),
        waiting.id: ("waiting", ""),
    }


def test_a_running_cell_says_where_and_since_when(place: Store, make_cell: MakeCell) -> None:
    cell = make_cell()
    folder = asked(place, cell)
    with folder.locked():
        (running,) = statuses(place)
        assert running.state == "running"
        assert running.claim is not None
        assert (running.claim.host, running.claim.pid) == (socket.gethostname(), os.getpid())
        assert running.claim.since.endswith("+00:00")
    assert [each.state for each in statuses(place)] == ["waiting"]


def test_a_cell_whose_process_was_killed_is_waiting(place: Store, make_cell: MakeCell) -> None:
    folder = asked(place, make_cell())
    (folder.path / "lock").touch()
    (folder.path / "running.json").write_text('{"host": "x", "pid": 1, "since": "long ago"}')
    assert [each.state for each in statuses(place)] == ["waiting"]


def test_a_record_that_cannot_be_read(place: Store, make_cell: MakeCell) -> None:
    folder = asked(place, make_cell())
    (folder.path / "record.json").write_text("{}")
    (status,) = statuses(place)
    assert status.state == "unreadable"
    assert "not a record of this version" in status.detail


def test_cells_of_an_earlier_file_that_were_never_begun_are_forgotten(
    place: Store, make_cell: MakeCell, make_record: MakeRecord
) -> None:
    wanted, unbegun, done, begun = (make_cell(seed=seed) for seed in range(4))
    for cell in (wanted, unbegun, done, begun):
        asked(place, cell)
    place.cell(done).write_record(make_record().model_copy(update={"cell": done}))
    place.cell(begun).checkpoint.touch()
    place.remove_pending_others([wanted])
    assert {each.cell.seed for each in statuses(place)} == {0, 2, 3}
    assert not place.cell(unbegun).path.exists()


def test_a_folder_without_cells(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no cells here; name the folder of a benchmark"):
        statuses(Store(tmp_path))
