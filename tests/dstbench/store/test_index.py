"""The file that holds the records of a results folder, and what it must never be trusted with."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dstbench.errors import StoreError
from dstbench.records import Record
from dstbench.store import CellFolder, Store, index
from dstbench.store.record_file import record_text
from dstbench.store.status import statuses

MakeRecord = Callable[..., Record]


@pytest.fixture
def folder(tmp_path: Path, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The results of six cells, of which an index is kept."""
    monkeypatch.setattr(index, "WORTH_IT", 3)
    monkeypatch.setattr(index, "FRESH", -1.0)  # as if the records were old
    store = Store(tmp_path / "results")
    for seed in range(6):
        record = make_record(seed=seed, fid=float(seed))
        folder = store.cell(record.cell)
        folder.request(record.cell)
        folder.write_record(record)
    assert len(Store(store.folder).records()) == 6
    assert (store.folder / index.FILE).exists()
    return store.folder


def fids(folder: Path) -> list[float | None]:
    records = sorted(Store(folder).records(), key=lambda record: record.cell.seed)
    return [record.scores.fid if record.scores else None for record in records]


def test_records_are_read_from_the_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = fids(folder)
    monkeypatch.setattr(CellFolder, "record", lambda self: pytest.fail("opened a record"))
    assert fids(folder) == expected == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert {each.state for each in statuses(Store(folder))} == {"done"}


def test_a_record_that_was_replaced_is_read_anew(folder: Path, make_record: MakeRecord) -> None:
    record = make_record(seed=2, fid=7.0)
    Store(folder).cell(record.cell).write_record(record)
    assert fids(folder) == [0.0, 1.0, 7.0, 3.0, 4.0, 5.0]


def test_a_record_that_was_edited_is_read_anew_whatever_its_times_say(
    folder: Path, make_record: MakeRecord
) -> None:
    path = Store(folder).cell(make_record(seed=2).cell).path / "record.json"
    before = path.stat()
    time.sleep(0.02)
    path.write_text(record_text(make_record(seed=2, fid=9.0), {}))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert fids(folder)[2] == 9.0


def test_a_record_that_is_gone_is_gone(folder: Path, make_record: MakeRecord) -> None:
    store = Store(folder)
    (store.cell(make_record(seed=2).cell).path / "record.json").unlink()
    assert len(fids(folder)) == 5
    assert store.is_open(make_record(seed=2).cell)


def test_one_store_sees_a_record_that_another_writes(folder: Path, make_record: MakeRecord) -> None:
    store, cell = Store(folder), make_record(seed=6).cell
    assert store.is_open(cell)
    store.cell(cell).request(cell)
    Store(folder).cell(cell).write_record(make_record(seed=6))
    assert not store.is_open(cell)


def test_a_damaged_record_is_an_error_still(folder: Path, make_record: MakeRecord) -> None:
    name = make_record(seed=2).cell.id
    (folder / "cells" / name / "record.json").write_text("{")
    with pytest.raises(StoreError, match="not a record"):
        Store(folder).record(name)


@pytest.mark.parametrize("damage", ["cut off", "flipped", "emptied", "another", "folder", "bomb"])
def test_a_damaged_index_costs_nothing_but_time(
    folder: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / index.FILE
    content = bytearray(path.read_bytes())
    match damage:
        case "cut off":
            path.write_bytes(content[:-20])
        case "flipped":
            content[len(content) // 2] ^= 0xFF
            path.write_bytes(content)
        case "emptied":
            path.write_bytes(b"")
        case "another":
            path.write_text("not one of ours")
        case "folder":
            path.unlink()
            path.mkdir()
        case "bomb":
            monkeypatch.setattr(index, "MOST", 100)
    assert fids(folder) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_an_index_of_another_place_is_not_believed(
    folder: Path, make_record: MakeRecord, tmp_path: Path
) -> None:
    """Whoever copies a folder, copies the index of other files."""
    copied = tmp_path / "copied"
    for seed in range(6):
        record = make_record(seed=seed, fid=10.0 + seed)
        there = copied / "cells" / record.cell.id / "record.json"
        there.parent.mkdir(parents=True)
        there.write_text(record_text(record, {}))
    (copied / index.FILE).write_bytes((folder / index.FILE).read_bytes())
    assert fids(copied) == [10.0, 11.0, 12.0, 13.0, 14.0, 15.0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_only_be_read_is_read(folder: Path) -> None:
    (folder / index.FILE).unlink()
    folder.chmod(0o555)
    try:
        assert len(fids(folder)) == 6
    finally:
        folder.chmod(0o755)


def test_an_index_that_cannot_be_written_is_done_without(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / index.FILE).unlink()

    def refuse(*_: object) -> None:
        raise OSError(30, "read-only file system")

    monkeypatch.setattr(index, "write_atomically", refuse)
    assert len(fids(folder)) == 6


def test_records_of_this_moment_are_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their next version might have the same times."""
    (folder / index.FILE).unlink()
    monkeypatch.setattr(index, "FRESH", 60.0)
    fids(folder)
    read: list[str] = []
    record = CellFolder.record
    monkeypatch.setattr(CellFolder, "record", lambda self: read.append("") or record(self))
    fids(folder)
    assert len(read) == 6


def test_few_records_have_no_index(tmp_path: Path, make_record: MakeRecord) -> None:
    record = make_record(fid=1.0)
    store = Store(tmp_path)
    store.cell(record.cell).request(record.cell)
    store.cell(record.cell).write_record(record)
    store.records()
    assert not (tmp_path / index.FILE).exists()
