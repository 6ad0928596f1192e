"""Progress on a terminal, and plain lines elsewhere, of cells that are run in whatever process."""

from __future__ import annotations

import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from threading import Event, Thread

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from dstbench.cell import Cell
from dstbench.cli.streams import clean
from dstbench.errors import StoreError
from dstbench.grid.variants import variants
from dstbench.records import Record
from dstbench.store.claim import Claim
from dstbench.store.folder import CellFolder
from dstbench.store.store import Store

SECONDS_BETWEEN_LINES = 15
SECONDS_BETWEEN_LOOKS = 0.5
"""Pause between two looks at the results folder, at least."""

LOOKING = 0.05
"""Part of the time at most that is spent looking: with thousands of cells a look takes long."""


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
        return f"{record.status}: {record.reason or 'no reason given'}"
    fid = record.scores.fid if record.scores else None
    seconds = record.times.training if record.times else 0.0
    return (f"FID {fid:.4g}, " if fid is not None else "") + f"trained in {seconds:.0f} s"


class Speed:
    """Steps per second of a cell, of those that this process has seen."""

    def __init__(self) -> None:
        self.first: tuple[int, float] | None = None

    def at(self, step: int) -> float | None:
        """Its mean so far; ``None`` where it cannot be told yet."""
        now = time.monotonic()
        if self.first is None:
            self.first = step, now
        first_step, started = self.first
        return (step - first_step) / (now - started) if now > started else None


class Listener(ABC):
    """Tells of cells, of which several may be running."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.cells = cells
        self.descriptions = descriptions(cells)
        self.speeds = {cell.id: Speed() for cell in cells}
        self.steps = {cell.id: cell.training_settings.steps for cell in cells}
        """Number of steps of each cell's training, as far as it is known."""

    @abstractmethod
    def started(self, cell: Cell, host: str) -> None:
        """The cell is being run on that machine."""

    @abstractmethod
    def progressed(self, cell: Cell, step: int, loss: float) -> None:
        """The cell is at that step."""

    @abstractmethod
    def ended(self, cell: Cell, record: Record) -> None:
        """The cell has a record."""

    def _describe(self, cell: Cell, host: str) -> str:
        where = "" if host == socket.gethostname() else f", on {host}"
        return self.descriptions[cell.id] + where


class Lines(Listener):
    """A line when a cell starts and ends, and one every few seconds in between."""

    def __init__(self, tell: Callable[[str], object], cells: Sequence[Cell]) -> None:
        super().__init__(cells)
        self.tell = tell
        self.numbers = {
            cell.id: f"[{number}/{len(cells)}]" for number, cell in enumerate(cells, start=1)
        }
        self.told: dict[str, float] = {}

    def started(self, cell: Cell, host: str) -> None:
        self._print(cell, self._describe(cell, host))

    def progressed(self, cell: Cell, step: int, loss: float) -> None:
        speed, now = self.speeds[cell.id].at(step), time.monotonic()
        told = self.told.setdefault(cell.id, now)
        if not speed or now - told < SECONDS_BETWEEN_LINES:
            return
        self.told[cell.id] = now
        steps = self.steps[cell.id]
        left = (steps - step) / speed
        self._print(
            cell,
            f"step {step}/{steps}, loss {loss:.4f}, {speed:.1f} steps/s, "
            f"{left:.0f} s of training left",
        )

    def ended(self, cell: Cell, record: Record) -> None:
        self._print(cell, outcome(record))

    def _print(self, cell: Cell, text: str) -> None:
        self.tell(f"{self.numbers[cell.id]} {clean(text)}")


class Bars(Listener):
    """A bar for the grid, and one for the steps of each cell that is running."""

    def __init__(self, progress: Progress, cells: Sequence[Cell], done: int) -> None:
        super().__init__(cells)
        self.progress = progress
        self.grid = progress.add_task("grid", total=len(cells), completed=done, detail="cells")
        self.tasks: dict[str, TaskID] = {}

    def started(self, cell: Cell, host: str) -> None:
        if cell.id in self.tasks:  # its process died, and another has it now
            self.progress.remove_task(self.tasks.pop(cell.id))
        self.tasks[cell.id] = self.progress.add_task(
            self._describe(cell, host), total=self.steps[cell.id], detail="preparing"
        )

    def progressed(self, cell: Cell, step: int, loss: float) -> None:
        speed = self.speeds[cell.id].at(step)
        detail = f"loss {loss:.4f}" + (f"  {speed:.1f} steps/s" if speed else "")
        steps = self.steps[cell.id]
        if step == steps:
            detail = "sampling and scoring"
        self.progress.update(self.tasks[cell.id], total=steps, completed=step, detail=detail)

    def ended(self, cell: Cell, record: Record) -> None:
        if cell.id in self.tasks:
            self.progress.remove_task(self.tasks.pop(cell.id))
        self.progress.advance(self.grid)
        self.progress.console.print(
            clean(f"{self.descriptions[cell.id]}: {outcome(record)}"),
            markup=False,
            soft_wrap=True,
        )


class Follower:
    """Sees in the results folder what becomes of the cells, wherever they are run."""

    def __init__(self, store: Store, cells: Sequence[Cell], listener: Listener) -> None:
        self.listener = listener
        self.left = {cell.id: cell for cell in cells if store.is_open(cell)}
        self.folders = {id: store.cell(cell) for id, cell in self.left.items()}
        self.versions = {id: folder.version() for id, folder in self.folders.items()}
        self.claims = {
            id: None if folder.is_held() else folder.claim() for id, folder in self.folders.items()
        }
        """The latest known; at first, those of processes that are dead."""
        self.started: set[str] = set()

    def look(self) -> None:
        """Tell of what has changed since the last look."""
        for id, cell in list(self.left.items()):
            folder = self.folders[id]
            if folder.version() != self.versions[id]:
                self._tell_end(cell, folder)
            elif folder.has_claim() and (claim := folder.claim()) and claim != self.claims[id]:
                self._tell_claim(cell, claim)

    def _tell_claim(self, cell: Cell, claim: Claim) -> None:
        before, self.claims[cell.id] = self.claims[cell.id], claim
        if before is None or before.since != claim.since:
            self._tell_start(cell, claim.host)
        if claim.steps is not None:
            self.listener.steps[cell.id] = claim.steps
        if claim.loss is not None:
            self.listener.progressed(cell, claim.step, claim.loss)

    def _tell_start(self, cell: Cell, host: str) -> None:
        self.started.add(cell.id)
        self.listener.started(cell, host)

    def _tell_end(self, cell: Cell, folder: CellFolder) -> None:
        del self.left[cell.id]
        with suppress(StoreError):
            record = folder.record()
            if record and record.status != "skipped":
                if cell.id not in self.started:  # quicker than two looks
                    self._tell_start(cell, socket.gethostname())
                self.listener.ended(cell, record)


@contextmanager
def watching(
    console: Console,
    store: Store,
    cells: Sequence[Cell],
    log: Callable[[str], object] | None = None,
) -> Iterator[None]:
    """Tell of the cells in a way that suits the console, and in lines to ``log``, for as long as
    the grid runs."""
    with _listener(console, store, cells) as listener:
        listeners = [listener, *([Lines(log, cells)] if log else [])]
        followers, stop = [Follower(store, cells, each) for each in listeners], Event()

        def look() -> None:
            for follower in followers:
                follower.look()

        def follow() -> None:
            pause = SECONDS_BETWEEN_LOOKS
            while not stop.wait(pause):
                begun = time.thread_time()
                look()
                pause = max(SECONDS_BETWEEN_LOOKS, (time.thread_time() - begun) / LOOKING)

        thread = Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            look()


@contextmanager
def _listener(console: Console, store: Store, cells: Sequence[Cell]) -> Iterator[Listener]:
    if not console.is_terminal:
        yield Lines(partial(console.print, markup=False, soft_wrap=True), cells)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bars(progress, cells, sum(store.cell(cell).version() is not None for cell in cells))
