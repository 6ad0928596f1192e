"""Files that are damaged, in the way, or put there by a stranger."""

import fcntl
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from dstbench.errors import StoreError
from dstbench.records import LONGEST_ERROR, LONGEST_REASON, Record
from dstbench.store import CellFolder, Store
from dstbench.store.status import statuses

MakeRecord = Callable[..., Record]


@pytest.fixture
def folder(tmp_path: Path) -> CellFolder:
    (tmp_path / "cells" / "cell").mkdir(parents=True)
    return CellFolder(tmp_path / "cells" / "cell")


def flip(path: Path, byte: int = -1) -> None:
    """Turn one bit of a file over."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if byte < 0 else byte] ^= 1
    path.write_bytes(content)


def test_numbers_that_are_not_finite_come_back(folder: CellFolder, make_record: MakeRecord) -> None:
    record = make_record(
        metadata={"nan": math.nan, "inf": -math.inf, "text": "NaN"}, validation_loss=math.inf
    )
    folder.write_record(record)
    found = folder.record()
    assert found is not None
    assert math.isnan(found.metadata["nan"])  # type: ignore[arg-type]
    assert found.metadata["inf"] == -math.inf
    assert found.metadata["text"] == "NaN"
    assert found.validation_loss == math.inf


def test_a_record_that_cannot_be_read_back_is_not_written(
    folder: CellFolder, make_record: MakeRecord
) -> None:
    folder.write_record(make_record(fid=1))
    broken = make_record().model_copy(update={"metadata": {"list": [1]}})
    with pytest.raises(StoreError, match="could not be read back"):
        folder.write_record(broken)
    assert folder.record() == make_record(fid=1)
    assert os.listdir(folder.path) == ["record.json"]


def test_every_bit_of_a_record_counts(folder: CellFolder, make_record: MakeRecord) -> None:
    folder.write_record(make_record(fid=214.0293))
    path = folder.path / "record.json"
    whole = path.read_bytes()
    for byte in range(0, len(whole), 7):
        flip(path, byte)
        try:
            found = folder.record()
        except StoreError:
            pass
        else:  # white space, and escapes of the same character
            assert found == make_record(fid=214.0293)
        path.write_bytes(whole)
    path.write_text(whole.decode().replace("214.0293", "214.0362"))
    with pytest.raises(StoreError, match=r"damaged: it is not what was written; move it away"):
        folder.record()


def test_a_record_without_checksums_is_one_of_an_earlier_version(
    folder: CellFolder, make_record: MakeRecord
) -> None:
    folder.write_record(make_record(fid=3))
    path = folder.path / "record.json"
    content = json.loads(path.read_text())
    del content["sha256"]
    path.write_text(json.dumps(content))
    assert folder.record() == make_record(fid=3)


def kept(folder: CellFolder, make_record: MakeRecord) -> None:
    """A cell that is done."""
    folder.write_denoiser(nn.Linear(3, 3), {})
    folder.write(folder.sampling, lambda path: path.write_bytes(b"lengths"))
    folder.history.write_text("step,loss\n10,0.5\n")
    folder.topology.write_text("step,layer\n10,conv\n")
    for path in (folder.samples, folder.reals, folder.neighbours):
        folder.write_images(path, np.zeros((2, 4, 4, 1), np.uint8))
    folder.write_record(make_record())


@pytest.mark.parametrize(
    "harm", [flip, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"?" * 99)]
)
def test_no_damaged_file_is_believed(
    folder: CellFolder, make_record: MakeRecord, harm: Callable[[Path], object]
) -> None:
    kept(folder, make_record)
    reads: dict[Path, Callable[[], object]] = {
        folder.samples: lambda: folder.read_images(folder.samples),
        folder.reals: lambda: folder.read_images(folder.reals),
        folder.neighbours: lambda: folder.read_images(folder.neighbours),
        folder.denoiser: folder.denoiser_state,
        folder.sampling: lambda: folder.read(folder.sampling, Path.read_bytes),
        folder.history: lambda: folder.read_table(folder.history),
        folder.topology: lambda: folder.read_table(folder.topology),
    }
    for path, read in reads.items():
        read()
        harm(path)
        with pytest.raises(StoreError, match=rf"{path.name}: cannot be read: its content is not"):
            read()


def in_its_place(path: Path, what: str) -> None:
    path.unlink(missing_ok=True)
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(b"[" * 100_000)


@pytest.mark.parametrize("what", ["folder", "pipe", "device", "brackets"])
@pytest.mark.parametrize("name", ["record.json", "samples.npy", "cell.json", "running.json"])
def test_one_damaged_file_costs_one_cell(
    tmp_path: Path,
    make_record: MakeRecord,
    caplog: pytest.LogCaptureFixture,
    name: str,
    what: str,
) -> None:
    store = Store(tmp_path)
    records = [make_record(seed=seed) for seed in range(2)]
    for record in records:
        store.cell(record.cell).request(record.cell)
        kept(store.cell(record.cell), lambda record=record: record)
    in_its_place(store.cell(records[0].cell).path / name, what)
    seeds = [record.cell.seed for record in store.records()]
    assert seeds == ([1] if name == "record.json" else [0, 1])
    samples = store.samples(store.records())
    assert records[1].cell.id in samples
    assert (records[0].cell.id in samples) == (name not in ("samples.npy", "record.json"))
    told = [str(tmp_path) in message for message in caplog.messages]
    assert all(told)
    assert bool(told) == (name in ("record.json", "samples.npy"))
    states = {each.cell.seed: each.state for each in statuses(store)}
    assert states == {0: "unreadable" if name == "record.json" else "done", 1: "done"}


def test_all_records_damaged(tmp_path: Path, make_record: MakeRecord) -> None:
    store = Store(tmp_path)
    folder = store.cell(make_record().cell)
    folder.path.mkdir(parents=True)
    folder.write_record(make_record())
    (folder.path / "record.json").write_text("{}")
    with pytest.raises(StoreError, match=r"(?s)no records here.*\n.*record\.json: not a record of"):
        store.records()


def test_a_folder_named_like_an_unfinished_file_ends_nothing(folder: CellFolder) -> None:
    (folder.path / "x.partial" / "y").mkdir(parents=True)
    (folder.path / "z.partial").symlink_to(folder.path.parent)
    with folder.locked():
        assert sorted(os.listdir(folder.path)) == ["lock", "running.json"]
    assert folder.path.parent.is_dir()


@pytest.mark.parametrize("link", ["cells", "cells/cell", "cells/cell/lock"])
def test_no_link_is_followed(tmp_path: Path, make_record: MakeRecord, link: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine.partial").write_text("mine")
    target = outside / "mine.partial" if link.endswith("lock") else outside
    place = tmp_path / "results" / link
    place.parent.mkdir(parents=True)
    place.symlink_to(target)
    folder = CellFolder(tmp_path / "results" / "cells" / "cell")
    with pytest.raises(StoreError, match="is a link, which is not followed"):
        folder.locked().__enter__()
    with pytest.raises(StoreError, match="is a link, which is not followed"):
        folder.request(make_record().cell)
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"mine.partial": "mine"}


def test_a_file_is_replaced_where_a_link_is(folder: CellFolder, make_record: MakeRecord) -> None:
    mine = folder.path.parent / "mine"
    mine.write_text("mine")
    names = ("cell.json", "record.json", "running.json", "denoiser.safetensors")
    images = ("samples.npy", "reals.npy", "neighbours.npy")
    for name in (*names, *images, "checkpoint.pt"):
        (folder.path / name).symlink_to(mine)
    folder.request(make_record().cell)
    with folder.locked():
        folder.write_checkpoint({"step": 1})
        kept(folder, make_record)
    assert mine.read_text() == "mine"


def test_a_folder_where_the_request_belongs_is_named(
    folder: CellFolder, make_record: MakeRecord
) -> None:
    (folder.path / "cell.json").mkdir()
    with pytest.raises(StoreError, match=r"cell\.json: cannot be written to: Is a directory"):
        folder.request(make_record().cell)


def test_a_dead_process_holds_nothing_where_one_may_only_read(folder: CellFolder) -> None:
    """An unprivileged user's view: the lock cannot be opened to write."""
    lock = folder.path / "lock"
    lock.touch()
    (folder.path / "running.json").write_text("{}")
    lock.chmod(0o444)
    assert not folder.is_held()
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert folder.is_held()
    lock.unlink()
    lock.symlink_to("/dev/null/nowhere")
    assert not folder.is_held()


def test_what_a_process_left_that_was_killed_when_its_cell_was_done_is_removed(
    tmp_path: Path, make_record: MakeRecord
) -> None:
    store = Store(tmp_path)
    records = [make_record(seed=0), make_record(seed=1, status="failed", error="why")]
    for record in records:
        folder = store.cell(record.cell)
        folder.request(record.cell)
        folder.write_record(record)
        folder.write_checkpoint({"step": 1})
        (folder.path / "running.json").write_text("{}")
    store.clear_away([record.cell for record in records])
    done, failed = (store.cell(record.cell) for record in records)
    assert not done.checkpoints
    assert not done.has_claim()
    assert failed.checkpoints


def test_what_no_process_that_died_has_left_is_no_time_limit(folder: CellFolder) -> None:
    folder.timeout.write_text("left over")
    with folder.locked():
        assert folder.timeout_traceback() == ""
        running = (folder.path / "running.json").read_text()
    (folder.path / "running.json").write_text(running)  # as a process leaves it that is killed
    folder.timeout.write_text("File train.py")
    with folder.locked():
        assert folder.timeout_traceback() == "File train.py"


def test_a_heartbeat_that_cannot_be_written_is_left_unsaid(folder: CellFolder) -> None:
    with folder.locked():
        folder._lock._claimed_at = -math.inf
        in_its_place(folder.path / "running.json", "folder")
        folder.heartbeat(1, 0.5)


def test_a_huge_error_is_bounded(folder: CellFolder, make_record: MakeRecord) -> None:
    record = make_record(status="failed", error="begin" + "x" * 10**7 + "end")
    assert record.error is not None
    assert len(record.error) < LONGEST_ERROR
    assert record.error.startswith("begin")
    assert record.error.endswith("end")
    assert len(record.reason) <= LONGEST_REASON
    folder.write_record(record)
    assert folder.record() == record


def test_images_that_claim_to_be_larger_than_memory(folder: CellFolder) -> None:
    folder.write_images(folder.samples, np.zeros((1, 2, 2, 1), np.uint8))
    content = folder.samples.read_bytes()
    shape = b"(1, 2, 2, 1), }" + b" " * 20
    assert shape in content
    for count in (10**4, 10**14, 10**20):
        claimed = (b"(%d, 2, 2, 1), }" % count).ljust(len(shape))
        folder.samples.write_bytes(content.replace(shape, claimed))
        with pytest.raises(StoreError, match="cannot be read"):
            folder.read_images(folder.samples)
