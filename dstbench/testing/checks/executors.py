"""What is promised of an executor."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
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
from dstbench.execution.machine import environment
from dstbench.records import Record
from dstbench.store.files import now
from dstbench.store.store import Store
from dstbench.testing.checking import Broken, Subject
from dstbench.testing.checks import settings

SECONDS = 60.0
"""That an executor may take to end the processes of an iterator that is closed."""

SECONDS_BETWEEN_BEATS = 0.1
SECONDS_WITHOUT_A_BEAT = 2.0
"""After which a process is taken for dead."""
SECONDS_TO_START = 10.0
"""After the first cell: cells that are run side by side are begun by then."""

COMPLAINT = "there is no room for this record"
HERE = "it runs cells in the process that asks for them"

Behaviour = Literal["returns", "raises", "dies", "stays"]


@dataclass
class ExecutorSubject(Subject):
    """An executor, made anew for each trial."""

    cls: type[Executor]


@dataclass(frozen=True)
class Errand:
    """The ``run_cell`` of the checks: notes down each call, and does what the cell's model says."""

    results: Path
    notes: Path
    harness: tuple[str, int]
    """Machine and process that the check is made in."""
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
        record = Record(
            cell=cell,
            status="skipped",
            error="was only a trial",
            started=now(),
            environment=environment(torch.device("cpu")),
        )
        if not note.parent.exists():
            return  # the trial is over: its folder is not to come back
        folder = Store(self.results).cell(cell)
        with folder.locked():
            folder.write_record(record)
        (self.notes / "returned" / cell.id).touch()

    def into(self, results: Path) -> RunCell:
        return replace(self, results=results)

    def _is_first(self) -> bool:
        """Of all calls that stay: this one does not, so that there is something to hear."""
        with suppress(FileExistsError):
            (self.notes / "first").touch(exist_ok=False)
            return True
        return False

    def _stay(self, note: Path) -> None:
        """Give signs of life, until this process is ended or the trial is over."""
        while note.parent.exists():
            os.utime(note)
            time.sleep(SECONDS_BETWEEN_BEATS)


class Trial:
    """A cell of each behaviour, run by an executor."""

    def __init__(self, subject: ExecutorSubject, notes: Path, behaviours: Sequence[Behaviour]):
        for name in ("calls", "returned"):
            (notes / name).mkdir()
        self.notes = notes
        self.cells = [_cell(model, seed) for seed, model in enumerate(behaviours)]
        errand = Errand(notes / "results", notes, _this_process())
        with _skipped_if_impossible():
            self.running = subject.cls(subject.settings).run(errand, self.cells)

    def next(self) -> Ended | None:
        """What is told next, if anything is."""
        with _skipped_if_impossible():
            ended = next(self.running, None)
        if not isinstance(ended, Ended | None):
            raise Broken(f"its run gave {ended!r}, no Ended")
        return ended

    def errors(self) -> dict[str, str | None]:
        """By cell id, when all cells have ended, each of them once."""
        told: dict[str, str | None] = {}
        while ended := self.next():
            if ended.cell.id in told:
                raise Broken(f"{ended.cell.id} was told of twice")
            if ended.error is None and not (self.notes / "returned" / ended.cell.id).exists():
                raise Broken(f"{ended.cell.id} ended without an error, but its call never returned")
            told[ended.cell.id] = ended.error
        for cell in self.cells:
            if cell.id not in told:
                raise Broken(f"{cell.id} was never told of")
        return told

    @property
    def was_here(self) -> bool:
        """Whether a cell was run in the process of the check."""
        return (self.notes / "here").exists()

    def calls(self) -> list[Path]:
        """A note of each call, which those that stay keep fresh."""
        return list((self.notes / "calls").iterdir())


def every_cell_is_run_once(subject: ExecutorSubject) -> None:
    """run_cell is called once for each cell, as it was given, and of each cell is told once, after
    its call has returned."""
    with _trial(subject, "returns", "returns", "returns", "returns") as trial:
        for name, error in trial.errors().items():
            if error is not None:
                raise Broken(f"{name} ended with an error: {error}")
        calls = Counter(note.read_text() for note in trial.calls())
        for cell in trial.cells:
            if (count := calls.pop(cell.model_dump_json(), 0)) != 1:
                raise Broken(f"run_cell was called {count} times for {cell.id}")
        if calls:
            raise Broken(f"run_cell was called for cells that were not given: {', '.join(calls)}")


def no_cells_are_no_work(subject: ExecutorSubject) -> None:
    """Where there are no cells, nothing is told."""
    with _trial(subject) as trial:
        if ended := trial.next():
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


def closing_leaves_no_process_behind(subject: ExecutorSubject) -> None:
    """Where nobody listens any more, because the iterator was closed, all processes are ended."""
    with _trial(subject, "stays", "stays", "stays", "stays") as trial:
        trial.next()
        if trial.was_here:
            raise SkipTest(HERE)
        close = getattr(trial.running, "close", None)
        if close is None:
            raise Broken(f"its run gave a {type(trial.running).__name__}, which cannot be closed")
        _wait(lambda: len(trial.calls()) > 1, SECONDS_TO_START)
        close()
        if not _wait(lambda: not _beating(trial), SECONDS):
            raise Broken(f"{SECONDS:.0f} seconds after it was closed, a cell was still run")


CHECKS = (
    *settings.CHECKS,
    every_cell_is_run_once,
    no_cells_are_no_work,
    an_exception_ends_its_cell_alone,
    a_dead_process_ends_its_cell_alone,
    closing_leaves_no_process_behind,
)


def _error_of_one(subject: ExecutorSubject, behaviour: Behaviour) -> str:
    """Why a cell of that behaviour has ended, of three; the others have no error."""
    with _trial(subject, "returns", behaviour, "returns") as trial:
        errors = trial.errors()
        if behaviour == "dies" and trial.was_here:
            raise SkipTest(HERE)
        bad = errors.pop(trial.cells[1].id)
        for name, error in errors.items():
            if error is not None:
                raise Broken(f"{name}, another cell, ended with an error: {error}")
        if bad is None:
            raise Broken(f"{trial.cells[1].id} ended without an error")
        return bad


@contextmanager
def _trial(subject: ExecutorSubject, *behaviours: Behaviour) -> Iterator[Trial]:
    """In the current folder, which other machines see too, if they see any."""
    with TemporaryDirectory(
        prefix=".dstbench-check-", dir=Path.cwd(), ignore_cleanup_errors=True
    ) as folder:
        yield Trial(subject, Path(folder), behaviours)


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


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition came true within that time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(SECONDS_BETWEEN_BEATS)
    return False


def _beating(trial: Trial) -> bool:
    """Whether a call that stays has renewed its note lately, or now does."""
    before = {note: note.stat().st_mtime_ns for note in trial.calls()}
    time.sleep(SECONDS_WITHOUT_A_BEAT)
    return before != {note: note.stat().st_mtime_ns for note in trial.calls()}
