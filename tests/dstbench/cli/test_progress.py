"""What a run tells: lines on a pipe, bars on a terminal."""

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from dstbench.cli import progress
from dstbench.cli.progress import Bars, Follower, Lines, Listener, descriptions, outcome, watching
from dstbench.grid import Cell
from dstbench.records import Record
from dstbench.store import Store, claim

MakeRecord = Callable[..., Record]
MakeCell = Callable[..., Cell]


class Clock:
    """Stands still unless told otherwise."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def console(terminal: bool) -> Console:
    return Console(file=StringIO(), force_terminal=terminal, width=100, color_system=None)


def plainly(console: Console) -> Callable[[str], None]:
    return partial(console.print, markup=False, soft_wrap=True)


def text(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_a_cell_in_a_few_words(make_cell: MakeCell) -> None:
    cell = make_cell("rigl", 0.9, seed=2)
    assert descriptions([cell]) == {cell.id: "toy-net on toy-images, rigl S=0.9, seed 2"}


def test_cells_that_differ_in_settings_alone_are_told_apart(make_cell: MakeCell) -> None:
    low, high = (make_cell("rigl", 0.9, sparsifier_settings={"prune_rate": p}) for p in (0.1, 0.5))
    words = descriptions([make_cell(), low, high])
    assert words[low.id] == "toy-net on toy-images, rigl S=0.9, seed 0 (prune_rate=0.1)"
    assert words[high.id] == "toy-net on toy-images, rigl S=0.9, seed 0 (prune_rate=0.5)"


def test_a_record_in_a_few_words(make_record: MakeRecord) -> None:
    assert outcome(make_record(fid=12.34567, step=0.5)) == "FID 12.35, trained in 50 s"
    assert outcome(make_record()) == "trained in 5 s"
    failed = make_record(status="failed", error="Traceback\n  File …\nOSError: disk full\n")
    assert outcome(failed) == "failed: OSError: disk full"
    diverged = make_record(status="diverged", error="the loss is nan at step 3")
    assert outcome(diverged) == "diverged: the loss is nan at step 3"
    assert outcome(make_record(status="failed")) == "failed: no reason given"


HERE = socket.gethostname()


def test_lines(clock: Clock, make_cell: MakeCell, make_record: MakeRecord) -> None:
    cells = [make_cell(), make_cell("static", 0.5, training={"steps": 1000})]
    pipe = console(terminal=False)
    lines = Lines(plainly(pipe), cells)
    lines.started(cells[1], HERE)
    lines.started(cells[0], "node-7")
    clock.now += 60  # a first stage was trained
    for step in range(1, 130, 2):
        lines.progressed(cells[1], step, loss=0.123456)
        clock.now += 0.5
    error = "[bold]brackets are no markup[/]"
    lines.ended(cells[1], make_record(status="failed", error=error))
    assert text(pipe).splitlines() == [
        "[2/2] toy-net on toy-images, static S=0.5, seed 0",
        "[1/2] toy-net on toy-images, dense S=0, seed 0, on node-7",
        "[2/2] step 61/1000, loss 0.1235, 4.0 steps/s, 235 s of training left",
        "[2/2] step 121/1000, loss 0.1235, 4.0 steps/s, 220 s of training left",
        "[2/2] failed: [bold]brackets are no markup[/]",
    ]


def test_the_speed_of_a_resumed_cell_is_of_the_steps_that_were_seen(
    clock: Clock, make_cell: MakeCell
) -> None:
    cell = make_cell(training={"steps": 1000})
    pipe = console(terminal=False)
    lines = Lines(plainly(pipe), [cell])
    for step in range(901, 940):
        lines.progressed(cell, step, loss=1.0)
        clock.now += 0.5
    assert text(pipe).splitlines() == [
        "[1/1] step 931/1000, loss 1.0000, 2.0 steps/s, 34 s of training left"
    ]


def test_bars(clock: Clock, make_cell: MakeCell, make_record: MakeRecord) -> None:
    cells = [make_cell(), make_cell("static", 0.5), make_cell("static", 0.9)]
    terminal = console(terminal=True)
    with Progress(
        TextColumn("{task.description}"), TextColumn("{task.fields[detail]}"), console=terminal
    ) as progress:
        bars = Bars(progress, cells, done=1)

        def shown() -> list[tuple[str, float, float | None, str]]:
            return [
                (t.description, t.completed, t.total, t.fields["detail"]) for t in progress.tasks
            ]

        assert shown() == [("grid", 1, 3, "cells")]
        bars.started(cells[1], HERE)
        name = "toy-net on toy-images, static S=0.5, seed 0"
        assert shown() == [("grid", 1, 3, "cells"), (name, 0, 12, "preparing")]
        bars.progressed(cells[1], 1, loss=0.5)
        assert shown()[1] == (name, 1, 12, "loss 0.5000")
        clock.now += 2
        bars.progressed(cells[1], 11, loss=0.25)
        assert shown()[1] == (name, 11, 12, "loss 0.2500  5.0 steps/s")
        bars.started(cells[2], "node-7")
        other = "toy-net on toy-images, static S=0.9, seed 0, on node-7"
        bars.progressed(cells[1], 12, loss=0.25)
        assert shown()[1:] == [
            (name, 12, 12, "sampling and scoring"), (other, 0, 12, "preparing")
        ]  # fmt: skip
        bars.ended(cells[1], make_record(fid=3.5))
        assert shown() == [("grid", 2, 3, "cells"), (other, 0, 12, "preparing")]
        bars.started(cells[2], "node-8")
        assert [row[0] for row in shown()] == ["grid", other.replace("7", "8")]
    assert f"{name}: FID 3.5, trained in 5 s" in text(terminal)


def test_lines_go_into_a_log_as_well(
    tmp_path: Path, make_cell: MakeCell, make_record: MakeRecord
) -> None:
    cell, place = make_cell(), Store(tmp_path)
    log: list[str] = []
    with watching(console(True), place, [cell], log.append):
        place.cell(cell).request(cell)
        place.cell(cell).write_record(make_record(fid=3.5))
    assert [line[:15] for line in log] == ["[1/1] toy-net o", "[1/1] FID 3.5, "]


@dataclass
class Ear(Listener):
    cells: Sequence[Cell]
    heard: list[tuple[object, ...]] = field(default_factory=list)
    steps: dict[str, int] = field(default_factory=dict)

    def started(self, cell: Cell, host: str) -> None:
        self.heard.append(("started", cell.sparsifier))

    def progressed(self, cell: Cell, step: int, loss: float) -> None:
        self.heard.append(("progressed", cell.sparsifier, step, loss))

    def ended(self, cell: Cell, record: Record) -> None:
        self.heard.append(("ended", cell.sparsifier, record.status))


def test_what_is_told_is_what_the_folder_says(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_cell: MakeCell,
    make_record: MakeRecord,
) -> None:
    monkeypatch.setattr(claim, "SECONDS_BETWEEN_HEARTBEATS", 0)
    cells = [
        make_cell(),
        make_cell("static", 0.5),
        make_cell("rigl", 0.5),
        make_cell("magran", 0.5),
    ]
    place = Store(tmp_path)
    dense, static, rigl, magran = map(place.cell, cells)
    for folder in (dense, static, rigl, magran):
        folder.path.mkdir(parents=True)
    static.write_record(make_record(status="failed"))
    (rigl.path / "running.json").write_text('{"host": "x", "pid": 1, "since": "long ago"}')
    follower = Follower(place, cells, ear := Ear(cells))
    follower.look()
    assert ear.heard == []  # of an earlier run, and of a process that is dead

    with rigl.locked():
        follower.look()
        rigl.heartbeat(7, 0.5, steps=40)
        follower.look()
        follower.look()
        rigl.write_record(make_record())
    dense.write_record(make_record(status="diverged"))
    magran.write_record(make_record(status="skipped"))
    follower.look()
    assert ear.heard == [
        ("started", "rigl"),
        ("progressed", "rigl", 7, 0.5),
        ("started", "dense"),
        ("ended", "dense", "diverged"),
        ("ended", "rigl", "done"),
    ]
    assert ear.steps[rigl.path.name] == 40
    static.write_record(make_record())  # tried again
    follower.look()
    assert ear.heard[5:] == [("started", "static"), ("ended", "static", "done")]


@pytest.mark.parametrize("terminal", [False, True])
def test_watching_sees_the_end_of_the_last_cell(
    tmp_path: Path, make_cell: MakeCell, make_record: MakeRecord, terminal: bool
) -> None:
    cell, place, shown = make_cell(), Store(tmp_path), console(terminal)
    with watching(shown, place, [cell]):
        place.cell(cell).request(cell)
        place.cell(cell).write_record(make_record(fid=3.5))
    assert "FID 3.5, trained in 5 s" in text(shown)


def test_steps_in_no_time_at_all(clock: Clock, make_cell: MakeCell) -> None:
    """As a coarse clock sees them."""
    cell = make_cell()
    lines = Lines(plainly(console(terminal=False)), [cell])
    for step in (1, 2, 3):
        lines.progressed(cell, step, loss=0.5)
