"""Results folders put together: what is kept, what is refused, and what a stranger's cannot do."""

import errno
import json
import logging
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dstbench.errors import StoreError
from dstbench.files import copy_regular
from dstbench.records import Record
from dstbench.report.merged import merge
from dstbench.settings import ReportSettings, TargetSettings
from dstbench.store import CellFolder, Store, merging
from dstbench.store.layout import Layout
from dstbench.store.rescored import rescored, write_rescored

MakeRecord = Callable[..., Record]
KeepCell = Callable[..., CellFolder]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cell(make_record: MakeRecord) -> KeepCell:
    """Keeps a record in a results folder, beside weights of this content."""

    def cell(results: str, *which: object, weights: bytes = b"weights", **fields: object):
        record = make_record(*which, **fields)
        folder = Store(Path(results)).cell(record.cell)
        folder.path.mkdir(parents=True)
        if record.status == "done":
            folder.denoiser.write_bytes(weights)
            folder.write_images(folder.samples, np.full((2, 4, 4, 1), len(weights), np.uint8))
        folder.history.write_text("step,loss,seconds_per_step,topology_updates\n1,2,3,0\n")
        folder.write_record(record)
        return folder

    return cell


def scores(results: str) -> dict[int, float | None]:
    """The FID of each cell by its seed."""
    return {r.cell.seed: r.scores and r.scores.fid for r in Store(Path(results)).records()}


def test_cells_of_both_and_those_that_are_equal_once(cell: KeepCell) -> None:
    for seed in (0, 1):
        cell("mine", seed=seed, fid=1.5 + seed)
    cell("yours", seed=1, fid=2.5, step=0.5)
    cell("yours", "rigl", 0.5, 2, fid=3.5)
    published, more = (
        TargetSettings(model="ldm", dataset="digits", sparsifier="rigl", mean=mean, source="x")
        for mean in (1.0, 2.0)
    )
    Store(Path("mine")).write_layout(
        Layout(tasks=("b", "a"), report=ReportSettings(margin=0.2), targets=(published,))
    )
    Store(Path("yours")).write_layout(
        Layout(tasks=("c", "a"), sparsifiers=("rigl",), targets=(more, published))
    )

    found = merge(["mine", "yours"], "ours")

    assert scores("ours") == {0: 1.5, 1: 2.5, 2: 3.5}
    assert found.name == "ours"
    assert len(found.records) == 3
    assert Store(Path("ours")).layout() == Layout(
        tasks=("b", "a", "c"),
        sparsifiers=("rigl",),
        report=ReportSettings(margin=0.2),
        targets=(published, more),
    )
    assert Path("ours/leaderboard.md").read_text().startswith("# ours\n")
    for written in ("report.html", "leaderboard.csv", "cells.csv", "samples.png"):
        assert Path("ours", written).exists()
    folder = Store(Path("ours")).cell(found.records[-1].cell)
    assert folder.denoiser.read_bytes() == b"weights"
    assert sorted(os.listdir()) == ["mine", "ours", "yours"]


@pytest.mark.parametrize(
    ("fields", "difference"),
    [
        ({"fid": 2.0}, "fid 1.5 and 2.0"),
        ({"fid": 1.5, "weights": b"other"}, "other weights, other samples"),
        ({"status": "diverged", "error": "loss"}, "done and diverged, fid 1.5 and None"),
    ],
)
def test_cells_that_differ_are_refused_unless_it_is_said_which_to_keep(
    cell: KeepCell, fields: dict[str, object], difference: str
) -> None:
    cell("mine", fid=1.5)
    other = cell("yours", **fields)
    with pytest.raises(StoreError) as refused:
        merge(["mine", "yours"], "ours")
    assert str(refused.value) == (
        "1 cell has different results in these folders; nothing is merged unless --keep says which "
        f"stay, first or last\n{other.path.name}: {difference} in mine and yours"
    )
    assert sorted(os.listdir()) == ["mine", "yours"]

    merge(["mine", "yours"], "first", keep="first")
    merge(["mine", "yours"], "last", keep="last")

    assert scores("first") == {0: 1.5}
    assert scores("last") == {0: fields.get("fid")}


def test_a_cell_without_a_result_gives_way(cell: KeepCell) -> None:
    cell("mine", seed=0, status="failed", error="mine")
    cell("yours", seed=0, fid=1.5)
    cell("mine", seed=1, fid=2.5)
    cell("yours", seed=1, status="skipped")
    cell("mine", seed=2, status="failed", error="first")
    cell("yours", seed=2, status="failed", error="last")
    waiting = cell("mine", seed=3, status="skipped")
    (waiting.path / "record.json").unlink()
    waiting.checkpoint.write_bytes(b"")

    found = merge(["mine", "yours"], "ours")

    assert scores("ours") == {0: 1.5, 1: 2.5, 2: None}
    assert {r.cell.seed: r.error for r in found.records}[2] == "first"
    assert not (Path("ours/cells") / waiting.path.name).exists()

    cell("others", seed=0, fid=9)
    with pytest.raises(StoreError, match=r"fid 1\.5 and 9\.0 in yours and others"):
        merge(["mine", "yours", "others"], "another")


def test_other_ways_of_scoring_and_weights_are_added(
    cell: KeepCell, make_record: MakeRecord
) -> None:
    mine, yours = cell("mine", fid=1.5), cell("yours", fid=1.5)
    mine.denoiser.unlink()  # results without weights are lighter to give away
    for folder, extractor, fid in ((mine, "a", 3), (yours, "a", 3), (yours, "b", 4)):
        evaluation = {"evaluation": {"extractor": extractor, "samples": 9}}
        write_rescored(folder, make_record(fid=fid, cell=evaluation))

    (record,) = Store(Path("mine")).records()
    merge(["mine", "yours"], "ours")

    ours = Store(Path("ours")).cell(record.cell)
    assert sorted(r.scores.fid for r in rescored(ours) if r.scores) == [3, 4]
    assert ours.denoiser.read_bytes() == b"weights"

    again = next(mine.path.glob("scores-*.json"))
    write_rescored(mine, make_record(fid=5, cell={"evaluation": {"extractor": "a", "samples": 9}}))
    assert again.exists()
    with pytest.raises(StoreError, match=r"scored again, fid 5\.0 and 3\.0 in mine and yours"):
        merge(["mine", "yours"], "another")


def test_nothing_half_merged_is_left(cell: KeepCell, monkeypatch: pytest.MonkeyPatch) -> None:
    cell("mine", fid=1.5)
    cell("yours", seed=1, fid=1.5)
    take, taken = merging._taken, []

    def stop(*arguments: Path) -> bool:
        taken.append(arguments)
        if len(taken) == 2:
            raise KeyboardInterrupt
        return take(*arguments)

    monkeypatch.setattr(merging, "_taken", stop)
    with pytest.raises(KeyboardInterrupt):
        merge(["mine", "yours"], "ours")
    assert sorted(os.listdir()) == ["mine", "yours"]


def test_a_full_disk_is_no_fault_of_the_cells(
    cell: KeepCell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, to: Path, most: int) -> str:
        if source.suffix == ".npy":
            raise OSError(errno.ENOSPC, "No space left on device")
        return copy_regular(source, to, most)

    cell("mine", fid=1.5)
    monkeypatch.setattr(merging, "copy_regular", full)
    with pytest.raises(StoreError, match="ours: cannot be written: No space left on device"):
        merge(["mine"], "ours")
    assert os.listdir() == ["mine"]


def test_what_is_there_stays(cell: KeepCell) -> None:
    cell("mine", fid=1.5)
    Path("ours").mkdir()
    Path("nowhere").symlink_to("gone")
    for to in ("mine", "ours", "nowhere"):
        with pytest.raises(StoreError, match=f"^{to}: is there already, and stays as it is"):
            merge(["mine"], to)
    with pytest.raises(StoreError, match="ours: no records here"):
        merge(["mine", "ours"], "another")
    assert sorted(os.listdir()) == ["mine", "nowhere", "ours"]


# A stranger's folder


@pytest.fixture
def secret(here: Path) -> Path:
    (here / "secret").mkdir()
    (here / "secret" / "file").write_bytes(b"weights")
    return here / "secret"


def link(path: Path, to: Path) -> None:
    path.unlink()
    path.symlink_to(to)


def test_no_link_is_followed(
    cell: KeepCell, secret: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cell("mine", seed=0, fid=1)
    link(cell("mine", seed=1, fid=2).denoiser, secret / "file")
    link(cell("mine", seed=2, fid=3).history, secret / "file")
    moved = cell("mine", seed=3, fid=4).path
    moved.rename(secret / "cell")
    moved.symlink_to(secret / "cell")
    link(cell("mine", seed=4, fid=5).path / "record.json", secret / "cell" / "record.json")
    link_of_all = Path("linked")
    link_of_all.mkdir()
    (link_of_all / "cells").symlink_to(Path("mine/cells").absolute())

    found = merge(["mine"], "ours")

    assert scores("ours") == {0: 1, 2: 3}
    assert not [path for path in Path("ours").rglob("*") if path.is_symlink()]
    assert not any(b"weights" in path.read_bytes() for path in Path("ours").rglob("history.csv"))
    assert len([m for m in caplog.messages if "a link, which is not followed" in m]) == 4
    with pytest.raises(StoreError, match="cells: a link, which is not followed"):
        merge(["linked"], "another")
    assert len(found.records) == 2


def change(folder: CellFolder, **cell: str) -> None:
    """Change what a record says of its cell, by a stranger who knows no checksums."""
    path = folder.path / "record.json"
    content = json.loads(path.read_text())
    del content["sha256"]
    content["cell"] |= cell
    path.write_text(json.dumps(content))


def test_no_name_leads_out_of_the_folder(
    cell: KeepCell, secret: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cell("mine", fid=1)
    change(cell("mine", seed=1, fid=2), model=f"{secret}/x")
    change(cell("mine", seed=2, fid=3), model="../../../secret/x")
    change(cell("mine", seed=3, fid=4), model="another")
    assert len(Store(Path("mine")).records()) == 2

    merge(["mine"], "ours")

    assert scores("ours") == {0: 1}
    told = "".join(caplog.messages)
    assert told.count("of no cell that could have a folder") == 4
    assert "its record is of another cell, another-" in told
    assert sorted(os.listdir(secret)) == ["file"]


class Mine:
    unpickled: list[bool] = []  # noqa: RUF012

    def __reduce__(self) -> object:
        return Mine.unpickled.append, (True,)


def test_what_cannot_be_what_it_says_costs_its_own_cell(
    cell: KeepCell, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell("mine", seed=0, fid=1)
    cell("mine", seed=1, fid=2).denoiser.write_bytes(b"changed")
    cell("mine", seed=2, fid=3).history.write_bytes(b"changed")
    pickled = cell("mine", seed=3, fid=4)
    pickled.samples.write_bytes(pickle.dumps(Mine()))
    change(pickled)  # no checksums: only its content tells what it is
    (pickled.path / "__init__.py").write_text("raise SystemExit")
    pipe = cell("mine", seed=4, fid=5).denoiser
    pipe.unlink()
    os.mkfifo(pipe)
    (cell("mine", seed=5, fid=6).path / "record.json").write_text("{")
    Path("mine/cells/file").write_text("")
    Path("mine/cells/empty").mkdir()
    monkeypatch.setitem(merging.SIZES, "reals.npy", 100)
    large = cell("mine", seed=6, fid=7)
    large.write_images(large.reals, np.zeros((9, 9, 9, 3), np.uint8))

    with caplog.at_level(logging.WARNING):
        merge(["mine"], "ours")

    assert scores("ours") == {0: 1, 2: 3, 3: 4, 6: 7}
    assert not Mine.unpickled
    ours = {path.name for path in Path("ours").rglob("*")}
    assert not {"__init__.py", "reals.npy", "empty", "file"} & ours
    told = "\n".join(caplog.messages)
    for problem in (
        "denoiser.safetensors: its content is not what was written",
        "history.csv: left out: its content is not what was written",
        "denoiser.safetensors: a pipe, no regular file",
        "reals.npy: left out: more than the 100 bytes allowed",
        "left out: not a record of this version of dstbench",
    ):
        assert problem in told
