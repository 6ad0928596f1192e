"""What is promised of an executor."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from unittest import SkipTest
from uuid import uuid4

import torch

from dstbench.cell import Cell
from dstbench.contracts import Ended, Executor, RunCell
from dstbench.errors import ConfigError, PluginError, StoreError
from dstbench.execution import worker
from dstbench.execution.machine import environment
from dstbench.records import Record
from dstbench.store.files import now
from dstbench.store.store import Store
from dstbench.testing.checking import Broken, Subject
from dstbench.testing.checks import settings
from dstbench.testing.checks.waiting import SECONDS_BETWEEN_BEATS, wait

SECONDS = 60.0
"""Seconds that an executor may take to end its processes after its iterator is closed."""

SECONDS_WITHOUT_A_BEAT = 2.0
"""Seconds after which a process is taken for dead."""
SECONDS_TO_START = 10.0
"""Seconds after the first cell by which cells that are run side by side have begun."""

COMPLAINT = "there is no room for this record"
IN_THIS_PROCESS = "it runs cells in the process that asks for them"

Behaviour = Literal["returns", "raises", "dies", "stays", "draws"]

DRAWS = 4
"""Random numbers that a cell draws, while nothing else does."""


@dataclass
class ExecutorSubject(Subject):
    """An executor, made anew for each run of cells."""

    cls: type[Executor]


@dataclass(frozen=True)
class RunCellSpy:
    """A ``run_cell`` that notes down each call, and behaves as the cell's model says."""

    results: Path
    notes: Path
    harness: tuple[str, int]
    """Machine and process id of the check."""
    device: str = "cpu"
    minutes: float | None = None
    threads: int | None = None

    def __call__(self, cell: Cell) -> None:
        note = self.notes / "calls" / uuid4().hex
        note.write_text(cell.model_dump_json())
        here = _this_process() == self.harness
        if here:
            (self.notes / "here").touch()
        if cell.model == "raises":
            raise StoreError(COMPLAINT)
        if cell.model == "dies" and not here:
            os.kill(os.getpid(), signal.SIGKILL)
        if cell.model == "stays" and not here and not self._is_first():
            self._stay(note)
        if cell.model == "draws":
            with worker.turn, torch.random.fork_rng(devices=[]):
                self._draw(cell)
        record = Record(
            cell=cell,
            status="skipped",
            error="was only a trial",
            started=now(),
            environment=environment(torch.device("cpu")),
        )
        if not note.parent.exists():
            return  # the check is over: its folder is not to come back
        folder = Store(self.results).cell(cell)
        with folder.locked():
            folder.write_record(record)
        (self.notes / "returned" / cell.id).touch()

    def into(self, results: Path) -> RunCell:
        return replace(self, results=results)

    def parameters(self, cell: Cell) -> int | None:
        return None

    def report(self, message: str) -> None:
        pass

    def _draw(self, cell: Cell) -> None:
        """Draw as weights are drawn, and note down whether something else drew, or seeded."""
        alone = torch.rand(DRAWS, generator=torch.Generator().manual_seed(cell.seed)).tolist()
        torch.manual_seed(cell.seed)
        drawn: list[float] = []
        while len(drawn) < DRAWS:
            drawn.append(torch.rand(()).item())
            time.sleep(SECONDS_BETWEEN_BEATS)
        if drawn != alone:
            (self.notes / "disturbed" / cell.id).touch()

    def _is_first(self) -> bool:
        """Whether this is the first call of those that are to stay: it returns, so that the end of
        one cell is reported."""
        with suppress(FileExistsError):
            (self.notes / "first").touch(exist_ok=False)
            return True
        return False

    def _stay(self, note: Path) -> None:
        """Give signs of life, until this process is ended or the check is over."""
        while note.parent.exists():
            os.utime(note)
            time.sleep(SECONDS_BETWEEN_BEATS)


class ExecutorRun:
    """A run of an executor over one cell of each of the given behaviours."""

    def __init__(self, subject: ExecutorSubject, notes: Path, behaviours: Sequence[Behaviour]):
        for name in ("calls", "returned", "disturbed"):
            (notes / name).mkdir()
        self.notes = notes
        self.cells = [_cell(model, seed) for seed, model in enumerate(behaviours)]
        spy = RunCellSpy(notes / "results", notes, _this_process())
        with _skipped_if_impossible():
            self.endings = subject.cls(subject.settings).run(spy, self.cells)

    def next(self) -> Ended | None:
        """What the executor reports next; ``None`` at the end.

        Skips the check where the executor cannot run cells here.
        """
        with _skipped_if_impossible():
            ended = next(self.endings, None)
        if not isinstance(ended, Ended | None):
            raise Broken(f"its run gave {ended!r}, no Ended")
        return ended

    def errors(self) -> dict[str, str | None]:
        """The reported error of each cell, by cell id, after all cells have ended.

        Raises :class:`Broken` unless each cell ends once, after its call.
        """
        found: dict[str, str | None] = {}
        while ended := self.next():
            if ended.cell.id in found:
                raise Broken(f"{ended.cell.id} was told of twice")
            if ended.error is None and not (self.notes / "returned" / ended.cell.id).exists():
                raise Broken(f"{ended.cell.id} ended without an error, but its call never returned")
            found[ended.cell.id] = ended.error
        for cell in self.cells:
            if cell.id not in found:
                raise Broken(f"{cell.id} was never told of")
        return found

    @property
    def was_here(self) -> bool:
        """Whether a cell was run in the process of the check."""
        return (self.notes / "here").exists()

    def calls(self) -> list[Path]:
        """The files that note the calls; calls that stay keep theirs fresh."""
        return list((self.notes / "calls").iterdir())


def every_cell_is_run_once(subject: ExecutorSubject) -> None:
    """run_cell is called once for each cell, with the cell as it was given, and the end of each
    cell is reported once, after its call has returned."""
    with _run(subject, "returns", "returns", "returns", "returns") as run:
        for name, error in run.errors().items():
            if error is not None:
                raise Broken(f"{name} ended with an error: {error}")
        calls = Counter(note.read_text() for note in run.calls())
        for cell in run.cells:
            if (count := calls.pop(cell.model_dump_json(), 0)) != 1:
                raise Broken(f"run_cell was called {count} times for {cell.id}")
        if calls:
            raise Broken(f"run_cell was called for cells that were not given: {', '.join(calls)}")


def no_cells_are_no_work(subject: ExecutorSubject) -> None:
    """Where there are no cells, the executor reports nothing."""
    with _run(subject) as run:
        if ended := run.next():
            raise Broken(f"{ended} was told")


def an_exception_ends_its_cell_alone(subject: ExecutorSubject) -> None:
    """Where run_cell raises (it could not leave a record), the cell has ended with an error that
    says why, and the other cells are run."""
    error = _error_of_one(subject, "raises")
    if COMPLAINT not in error:
        raise Broken(f"run_cell raised StoreError({COMPLAINT!r}), but the error is: {error}")


def a_dead_process_ends_its_cell_alone(subject: ExecutorSubject) -> None:
    """Where a cell kills its process, each time that it is run, it has ended with an error, and the
    other cells are run."""
    _error_of_one(subject, "dies")


def cells_draw_alone(subject: ExecutorSubject) -> None:
    """While a cell is run, nothing else in its process draws from torch's generators or seeds them:
    threads call run_cell, in which they take turns, and leave its lock alone."""
    with _run(subject, "draws", "draws", "draws") as run:
        for name, error in run.errors().items():
            if error is not None:
                raise Broken(f"{name} ended with an error: {error}")
        for note in (run.notes / "disturbed").iterdir():
            raise Broken(
                f"{note.name} drew other random numbers than alone in a process: another thread "
                "drew from torch's generators, or seeded them, while it was run"
            )


def closing_leaves_no_process_behind(subject: ExecutorSubject) -> None:
    """Once the iterator that run returned is closed, all of the executor's processes are ended."""
    with _run(subject, "stays", "stays", "stays", "stays") as run:
        run.next()
        if run.was_here:
            raise SkipTest(IN_THIS_PROCESS)
        close = getattr(run.endings, "close", None)
        if close is None:
            raise Broken(f"its run gave a {type(run.endings).__name__}, which cannot be closed")
        wait(lambda: len(run.calls()) > 1, SECONDS_TO_START)
        close()
        if not wait(lambda: not _beating(run), SECONDS):
            raise Broken(f"{SECONDS:.0f} seconds after it was closed, a cell was still run")


CHECKS = (
    *settings.CHECKS,
    every_cell_is_run_once,
    no_cells_are_no_work,
    an_exception_ends_its_cell_alone,
    a_dead_process_ends_its_cell_alone,
    cells_draw_alone,
    closing_leaves_no_process_behind,
)


def _error_of_one(subject: ExecutorSubject, behaviour: Behaviour) -> str:
    """The error with which a cell of that behaviour ended, between two that return.

    Raises :class:`Broken` where it has none, or another cell has one.
    """
    with _run(subject, "returns", behaviour, "returns") as run:
        errors = run.errors()
        if behaviour == "dies" and run.was_here:
            raise SkipTest(IN_THIS_PROCESS)
        bad = errors.pop(run.cells[1].id)
        for name, error in errors.items():
            if error is not None:
                raise Broken(f"{name}, another cell, ended with an error: {error}")
        if bad is None:
            raise Broken(f"{run.cells[1].id} ended without an error")
        return bad


@contextmanager
def _run(subject: ExecutorSubject, *behaviours: Behaviour) -> Iterator[ExecutorRun]:
    """A run in the current folder, which other machines see too, if they see any."""
    with TemporaryDirectory(
        prefix=".dstbench-check-", dir=Path.cwd(), ignore_cleanup_errors=True
    ) as folder:
        yield ExecutorRun(subject, Path(folder), behaviours)


@contextmanager
def _skipped_if_impossible() -> Iterator[None]:
    try:
        yield
    except (ConfigError, PluginError) as error:
        raise SkipTest(f"it runs no cells here: {error}") from None


def _cell(model: Behaviour, seed: int) -> Cell:
    return Cell(model=model, dataset="none", sparsifier="dense", sparsity=0, seed=seed)


def _this_process() -> tuple[str, int]:
    return socket.gethostname(), os.getpid()


def _beating(run: ExecutorRun) -> bool:
    """Whether a call that stays has renewed its note lately, or now does."""
    before = {note: note.stat().st_mtime_ns for note in run.calls()}
    time.sleep(SECONDS_WITHOUT_A_BEAT)
    return before != {note: note.stat().st_mtime_ns for note in run.calls()}
