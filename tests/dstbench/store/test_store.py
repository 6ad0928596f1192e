"""What is on disk."""

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from dstbench.errors import HeldError, StoreError
from dstbench.records import Record
from dstbench.store import CellFolder, Store, claim, write_atomically
from dstbench.store.files import write_folder
from dstbench.store.rescored import write_rescored

MakeRecord = Callable[..., Record]


@pytest.fixture
def folder(tmp_path: Path) -> CellFolder:
    (tmp_path / "cell").mkdir()
    return CellFolder(tmp_path / "cell")


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def fail(unfinished: Path) -> None:
        assert unfinished.parent == tmp_path  # a rename is atomic only within a file system
        unfinished.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert os.listdir(tmp_path) == []
    write_atomically(path, lambda unfinished: unfinished.write_text("whole"))
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert path.read_text() == "whole"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_folder_on_a_full_disk_is_no_folder(tmp_path: Path, error: Exception) -> None:
    def write(folder: Path) -> None:
        (folder / "half").touch()
        raise error

    with pytest.raises(StoreError, match="to: cannot be written: No space left on device"):
        write_folder(tmp_path / "to", write)
    assert list(tmp_path.iterdir()) == []


def test_a_record_comes_back(folder: CellFolder, make_record: MakeRecord) -> None:
    assert folder.record() is None
    for record in (make_record(fid=1.25), make_record(status="failed", error="Traceback\n…")):
        folder.write_record(record)
        assert folder.record() == record


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda text: "", r"\(: Invalid JSON"),
        (lambda text: text[:100], r"\(: Invalid JSON"),
        (lambda text: text.replace('"schema_version": 1', '"schema_version": 2'), "schema_version"),
        (lambda text: text.replace('"fid"', '"fud"'), r"scores\.fud"),
    ],
)
def test_a_record_that_cannot_be_read(
    folder: CellFolder,
    make_record: MakeRecord,
    damage: Callable[[str], str],
    problem: str,
) -> None:
    folder.write_record(make_record())
    path = folder.path / "record.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(StoreError, match=rf"(?s)record\.json: not a record.*{problem}.*move it"):
        folder.record()


@pytest.mark.timeout(60)
def test_what_is_no_file_is_not_waited_for(folder: CellFolder) -> None:
    for name in ("cell.json", "timeout.txt", "running.json", "record.json"):
        os.mkfifo(folder.path / name)
    assert folder.requested_cell() is None
    assert folder.timeout_traceback() == ""
    with pytest.raises(StoreError, match=r"record\.json: cannot be read: a pipe, no regular file"):
        folder.record()
    os.unlink(folder.path / "record.json")
    (folder.path / "record.json").mkdir()
    with pytest.raises(StoreError, match="cannot be read: Is a directory"):
        folder.record()


def test_the_trained_network_comes_back(folder: CellFolder) -> None:
    trained, other = nn.Linear(3, 3), nn.Linear(3, 3)
    mask = torch.eye(3, dtype=torch.bool)
    trained.weight.data[~mask] = 0
    assert folder.write_denoiser(trained, {"weight": mask}) == 4 * (3 + 3) + 2
    other.load_state_dict(folder.denoiser_state())
    assert torch.equal(other.weight, trained.weight)
    assert torch.equal(other.bias, trained.bias)


@pytest.mark.parametrize("content", [b"", b"no network"])
def test_a_trained_network_that_cannot_be_read(folder: CellFolder, content: bytes) -> None:
    folder.denoiser.write_bytes(content)
    with pytest.raises(StoreError, match=r"denoiser\.safetensors: cannot be read"):
        folder.denoiser_state()


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_are_kept_as_they_are(folder: CellFolder, channels: int) -> None:
    images = np.arange(5 * 2 * 3 * channels, dtype=np.uint8).reshape(5, 2, 3, channels)
    folder.write_images(folder.samples, images)
    np.testing.assert_array_equal(np.load(folder.samples, allow_pickle=False), images)


def test_a_second_process_does_not_get_the_cell(folder: CellFolder) -> None:
    hold = (
        "import sys, time; from pathlib import Path; from dstbench.store import CellFolder\n"
        "with CellFolder(Path(sys.argv[1])).locked(): print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", hold, str(folder.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        start = time.monotonic()
        with pytest.raises(StoreError, match=r"^cell cell is being run by another process$"):
            folder.locked().__enter__()
        assert time.monotonic() - start < 1
        process.kill()
    with folder.locked():
        pass  # a killed process holds nothing


def test_who_has_lost_a_cell_leaves_it_to_the_process_that_has_it(
    folder: CellFolder, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a machine is cut off from the file system that keeps its locks, and comes back."""
    monkeypatch.setattr(claim, "SECONDS_BETWEEN_HEARTBEATS", 0)
    images = np.zeros((1, 4, 4, 1), np.uint8)
    with folder.locked():
        folder.write_checkpoint({"step": 1})
        (folder.path / "lock").unlink()  # the system forgets the lock
        other = CellFolder(folder.path)
        monkeypatch.setattr(os, "getpid", lambda: 1)
        with other.locked():
            for write in (
                lambda: folder.heartbeat(2, 0.5),
                lambda: folder.write_checkpoint({"step": 2}),
                lambda: folder.write_denoiser(nn.Linear(1, 1), {}),
                lambda: folder.write_images(folder.samples, images),
                lambda: folder.write_record(make_record()),
            ):
                with pytest.raises(HeldError, match="since this machine was cut off"):
                    write()
            assert folder.version() is None
            assert [path.name for path in folder.checkpoints] == ["checkpoint.pt"]
            other.heartbeat(3, 0.5)
            left = {path.name for path in folder.path.iterdir()}
            assert left == {"checkpoint.pt", "lock", "running.json"}
            other.write_record(make_record())
    assert folder.record() == make_record()


def test_what_is_sent_of_a_cell(folder: CellFolder, make_record: MakeRecord) -> None:
    with folder.locked():
        folder.write_record(make_record())
        folder.samples.touch()
        assert [path.name for path in folder.files()] == ["samples.npy", "record.json"]


def test_what_a_killed_process_was_writing_is_cleared_away(folder: CellFolder) -> None:
    (folder.path / "checkpoint.pt.123.partial").write_text("half")
    folder.checkpoint.write_text("whole")
    with folder.locked():
        assert not (folder.path / "checkpoint.pt.123.partial").exists()
        assert folder.checkpoint.exists()


def test_a_locked_folder_is_made(tmp_path: Path) -> None:
    with CellFolder(tmp_path / "cells" / "new").locked():
        assert (tmp_path / "cells" / "new").is_dir()


def test_all_records_and_samples(tmp_path: Path, make_record: MakeRecord) -> None:
    store = Store(tmp_path / "small")
    records = [
        make_record(seed=seed).model_copy(update={"started": f"2026-01-0{day}T00:00:00+00:00"})
        for seed, day in ((2, 1), (0, 3), (1, 2))
    ]
    for record in records:
        folder = store.cell(record.cell)
        with folder.locked():
            folder.write_record(record)
    first = store.cell(records[0].cell)
    first.write_images(first.samples, np.full((1, 2, 2, 1), 7, np.uint8))
    assert [record.cell.seed for record in store.records()] == [2, 1, 0]  # as they were run
    samples = store.samples(records)
    assert list(samples) == [records[0].cell.id]
    assert samples[records[0].cell.id].shape == (1, 2, 2, 1)


def test_records_of_the_same_conditions(tmp_path: Path, make_record: MakeRecord) -> None:
    store = Store(tmp_path / "small")
    own = make_record("static", 0.5)
    others = {
        "dense": make_record("dense", 0.0, 3),
        "added": make_record("magran", 0.9, cell={"sparsifier_settings": {"prune_rate": 0.1}}),
        "diverged": make_record("rigl", 0.5, status="diverged"),
        "failed": make_record("rigl", 0.9, status="failed"),
        "longer": make_record("dense", cell={"training": {"steps": 9}}),
        "elsewhere": make_record("dense", cell={"dataset": "faces"}),
    }
    for record in (own, *others.values()):
        with store.cell(record.cell).locked():
            store.cell(record.cell).write_record(record)
    found = {record.cell.id for record in store.of_conditions([own.cell])}
    assert found == {others[name].cell.id for name in ("dense", "added", "diverged")}
    (store.cell(others["dense"].cell).path / "record.json").write_text("{}")
    assert len(list(store.of_conditions([own.cell]))) == 2


def test_a_copy_of_a_cell_is_left_out(
    tmp_path: Path, make_record: MakeRecord, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path / "small")
    own, other = make_record("static", 0.5), make_record("dense")
    for record in (own, other):
        store.cell(record.cell).path.mkdir(parents=True)
        store.cell(record.cell).write_record(record)
    copy = store.cell(other.cell).path.with_name("a copy")
    shutil.copytree(store.cell(other.cell).path, copy)
    assert {record.cell.id for record in store.records()} == {own.cell.id, other.cell.id}
    assert caplog.messages == [f"{copy}: left out: a copy of {other.cell.id}, which is there, too"]
    assert list(store.of_conditions([own.cell])) == [other]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_results_where_nothing_can_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    Store(tmp_path / "small").require_writable()
    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(StoreError, match=rf"{tmp_path} cannot be locked \({os.strerror(number)}\)"):
        Store(tmp_path / "small").require_writable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "cells", "missing"])
def test_a_folder_without_records(tmp_path: Path, name: str) -> None:
    (tmp_path / "cells" / "unfinished").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"no records here; name the folder of a benchmark"):
        Store(tmp_path / name).records()


def test_a_cell_that_was_run_or_scored_in_one_way_twice_counts_once(
    tmp_path: Path, make_record: MakeRecord
) -> None:
    store = Store(tmp_path)
    ran = [make_record(fid=seed, cell={"seed": seed}) for seed in (0, 1)]
    alike = make_record(fid=5.0, cell={"seed": 2})
    for record in ran:
        folder = store.cell(record.cell)
        folder.path.mkdir(parents=True)
        for again in (alike, ran[0]):
            write_rescored(folder, again)

    assert store.rescored(ran) == [alike]
