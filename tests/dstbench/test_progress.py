"""What a run tells: lines on a pipe, bars on a terminal."""

from collections.abc import Callable
from io import StringIO

import pytest
from rich.console import Console

from dstbench import progress
from dstbench.grid import Cell
from dstbench.progress import Bars, Lines, descriptions, outcome, watching
from dstbench.records import Record

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


def test_lines(clock: Clock, make_cell: MakeCell, make_record: MakeRecord) -> None:
    cells = [make_cell(), make_cell("static", 0.5, training={"steps": 1000})]
    pipe = console(terminal=False)
    with watching(pipe, cells) as listener:
        assert isinstance(listener, Lines)
        listener.dstbench_cell_started(cells[1])
        clock.now += 60  # a first stage was trained
        for step in range(1, 130):
            listener.dstbench_step(cells[1], step, loss=0.123456)
            clock.now += 0.25
        error = "[bold]brackets are no markup[/]"
        listener.dstbench_cell_finished(cells[1], make_record(status="failed", error=error))
    assert text(pipe).splitlines() == [
        "[2/2] toy-net on toy-images, static S=0.5, seed 0",
        "    step 61/1000, loss 0.1235, 4.0 steps/s, 235 s of training left",
        "    step 121/1000, loss 0.1235, 4.0 steps/s, 220 s of training left",
        "    failed: [bold]brackets are no markup[/]",
    ]


def test_the_speed_of_a_resumed_cell_is_that_of_this_process(
    clock: Clock, make_cell: MakeCell
) -> None:
    cell = make_cell(training={"steps": 1000})
    pipe = console(terminal=False)
    lines = Lines(pipe, [cell])
    lines.dstbench_cell_started(cell)
    for step in range(901, 940):
        lines.dstbench_step(cell, step, loss=1.0)
        clock.now += 0.5
    assert text(pipe).splitlines()[1:] == [
        "    step 931/1000, loss 1.0000, 2.0 steps/s, 34 s of training left"
    ]


def test_bars(clock: Clock, make_cell: MakeCell, make_record: MakeRecord) -> None:
    cells = [make_cell(), make_cell("static", 0.5), make_cell("static", 0.9)]
    terminal = console(terminal=True)
    with watching(terminal, cells) as listener:
        assert isinstance(listener, Bars)
        tasks = listener.progress.tasks

        def shown() -> list[tuple[str, float, float | None, str]]:
            tasks = listener.progress.tasks
            return [(t.description, t.completed, t.total, t.fields["detail"]) for t in tasks]

        assert shown() == [("grid", 0, 3, "cells")]
        listener.dstbench_cell_started(cells[1])  # the first has a record already
        name = "toy-net on toy-images, static S=0.5, seed 0"
        assert shown() == [("grid", 1, 3, "cells"), (name, 0, 12, "preparing")]
        listener.dstbench_step(cells[1], 1, loss=0.5)
        assert shown()[1] == (name, 1, 12, "loss 0.5000  ")
        clock.now += 2
        listener.dstbench_step(cells[1], 11, loss=0.25)
        assert shown()[1] == (name, 11, 12, "loss 0.2500  5.0 steps/s")
        listener.dstbench_step(cells[1], 12, loss=0.25)
        assert shown()[1] == (name, 12, 12, "sampling and scoring")
        listener.dstbench_cell_finished(cells[1], make_record(fid=3.5))
        assert shown() == [("grid", 2, 3, "cells")]
        listener.dstbench_cell_started(cells[2])
        listener.progress.refresh()
        assert len(tasks) == 1
    assert f"{name}: FID 3.5, trained in 5 s" in text(terminal)
    assert "static S=0.9" in text(terminal)


def test_steps_in_no_time_at_all(clock: Clock, make_cell: MakeCell) -> None:
    """As a coarse clock sees them."""
    cell = make_cell()
    for terminal in (False, True):
        with watching(console(terminal), [cell]) as listener:
            listener.dstbench_cell_started(cell)
            clock.now += 60
            for step in (1, 2, 3):
                listener.dstbench_step(cell, step, loss=0.5)
