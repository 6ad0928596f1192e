"""Progress on a terminal, and plain lines elsewhere: listeners to the events of a run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from dstbench import hookimpl
from dstbench.grid import Cell, variants
from dstbench.records import Record

SECONDS_BETWEEN_LINES = 15


def descriptions(cells: Sequence[Cell]) -> dict[str, str]:
    """Each cell in a few words, by its id."""
    variant = {id: f" ({settings})" if settings else "" for id, settings in variants(cells).items()}
    return {
        cell.id: f"{cell.task}, {cell.sparsifier} S={cell.sparsity:g}, seed {cell.seed}"
        f"{variant[cell.id]}"
        for cell in cells
    }


def outcome(record: Record) -> str:
    """A record in a few words."""
    if record.status != "done":
        reason = (record.error or "").strip().splitlines()
        return f"{record.status}: {reason[-1] if reason else 'no reason given'}"
    fid = record.scores.fid if record.scores else None
    seconds = record.times.training if record.times else 0.0
    return (f"FID {fid:.4g}, " if fid is not None else "") + f"trained in {seconds:.0f} s"


class Lines:
    """A line when a cell starts and ends, and one every few seconds in between."""

    def __init__(self, console: Console, cells: Sequence[Cell]) -> None:
        self.console = console
        self.order = {cell.id: number for number, cell in enumerate(cells, start=1)}
        self.descriptions = descriptions(cells)
        self.told = 0.0
        self.first_step = 0
        self.started = 0.0

    @hookimpl
    def dstbench_cell_started(self, cell: Cell) -> None:
        number = f"[{self.order[cell.id]}/{len(self.order)}]"
        self.console.print(f"{number} {self.descriptions[cell.id]}", markup=False, soft_wrap=True)
        self.first_step = 0

    @hookimpl
    def dstbench_step(self, cell: Cell, step: int, loss: float) -> None:
        now = time.monotonic()
        if not self.first_step:
            self.first_step, self.started, self.told = step, now, now
        if now - self.told < SECONDS_BETWEEN_LINES:
            return
        self.told = now
        speed = (step - self.first_step) / (now - self.started)
        left = (cell.training["steps"] - step) / speed
        self.console.print(
            f"    step {step}/{cell.training['steps']}, loss {loss:.4f}, {speed:.1f} steps/s, "
            f"{left:.0f} s of training left",
            soft_wrap=True,
        )

    @hookimpl
    def dstbench_cell_finished(self, cell: Cell, record: Record) -> None:
        self.console.print(f"    {outcome(record)}", markup=False, soft_wrap=True)


class Bars:
    """Two bars: the grid, and the steps of the current cell."""

    def __init__(self, progress: Progress, cells: Sequence[Cell]) -> None:
        self.progress = progress
        self.grid = progress.add_task("grid", total=len(cells), detail="cells")
        self.order = {cell.id: number for number, cell in enumerate(cells)}
        self.descriptions = descriptions(cells)
        self.current: TaskID | None = None
        self.first_step = 0
        self.started = 0.0

    @hookimpl
    def dstbench_cell_started(self, cell: Cell) -> None:
        self.progress.update(self.grid, completed=self.order[cell.id])
        self.first_step = 0
        self.current = self.progress.add_task(
            self.descriptions[cell.id], total=cell.training["steps"], detail="preparing"
        )

    @hookimpl
    def dstbench_step(self, cell: Cell, step: int, loss: float) -> None:
        if self.current is None:
            return
        now = time.monotonic()
        if not self.first_step:
            self.first_step, self.started = step, now
        seconds = now - self.started
        speed = f"{(step - self.first_step) / seconds:.1f} steps/s" if seconds else ""
        last = step == cell.training["steps"]
        detail = "sampling and scoring" if last else f"loss {loss:.4f}  {speed}"
        self.progress.update(self.current, completed=step, detail=detail)

    @hookimpl
    def dstbench_cell_finished(self, cell: Cell, record: Record) -> None:
        if self.current is not None:
            self.progress.remove_task(self.current)
        self.current = None
        self.progress.advance(self.grid)
        self.progress.console.print(
            f"{self.descriptions[cell.id]}: {outcome(record)}", markup=False, soft_wrap=True
        )


@contextmanager
def watching(console: Console, cells: Sequence[Cell]) -> Iterator[Lines | Bars]:
    """The listener that suits the console, for as long as the grid runs."""
    if not console.is_terminal:
        yield Lines(console, cells)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bars(progress, cells)
