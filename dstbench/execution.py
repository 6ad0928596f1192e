"""Running cells wherever there is room: what executors are given, and what they leave to others."""

from __future__ import annotations

import faulthandler
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dstbench.contracts import Ended
from dstbench.errors import DstbenchError, HeldError, PluginError, StoreError
from dstbench.failures import contained

if TYPE_CHECKING:
    from dstbench.contracts import Executor, RunCell
    from dstbench.grid import Cell
    from dstbench.runner import Runner
    from dstbench.store import RecordVersion

__all__ = ["in_this_process"]  # all that plugins need of it

TRIES = 3
"""How often a cell is run that leaves no record, although its process was well."""

SECONDS_BETWEEN_LOOKS = 1
"""At cells that other processes are running."""


class CellRunner:
    """What executors are given to call; see :class:`~dstbench.contracts.RunCell`.

    Pickled, it becomes the runner of the process that unpickles it, with plugins and data of its
    own.
    """

    def __init__(
        self,
        runner: Runner,
        versions: Mapping[str, RecordVersion | None],
        minutes: float | None = None,
        threads: int | None = None,
        choice: str | None = None,
    ) -> None:
        """
        Args:
            versions: of the records at the start of the run, by cell id: a cell that has another
                one was run by somebody else meanwhile.
            minutes: time limit of a cell.
            threads: CPU threads in other processes than this one.
            choice: of the device in other processes, whose machines may have what this one has
                not: ``auto``, ``cpu``, …; by default the device of this one.
        """
        self.runner = runner
        self.versions = versions
        self.minutes = minutes
        self.threads = threads
        self.choice = choice or self.device

    @property
    def results(self) -> Path:
        return self.runner.store.folder

    @property
    def device(self) -> str:
        return str(self.runner.workspace.device)

    def __call__(self, cell: Cell) -> None:
        with suppress(HeldError):
            self.runner.run(cell, self.versions.get(cell.id), self.minutes)

    def into(self, results: Path) -> CellRunner:
        runner = _runner(results.absolute(), self.choice, self.threads)
        return CellRunner(runner, {}, self.minutes, self.threads, self.choice)

    def __reduce__(self) -> tuple[Any, ...]:
        return _elsewhere, (
            self.results.absolute(), self.choice, self.threads, self.versions, self.minutes
        )  # fmt: skip


def _elsewhere(
    results: Path,
    choice: str,
    threads: int | None,
    versions: Mapping[str, RecordVersion | None],
    minutes: float | None,
) -> CellRunner:
    return CellRunner(_runner(results, choice, threads), versions, minutes, threads, choice)


@lru_cache
def _runner(results: Path, choice: str, threads: int | None) -> Runner:
    """The runner of this process."""
    import torch

    from dstbench.cache import Cache
    from dstbench.contracts import Workspace
    from dstbench.machine import choose_device
    from dstbench.plugins import load_plugins
    from dstbench.runner import Runner
    from dstbench.store import Store

    if threads is not None:
        torch.set_num_threads(threads)
    workspace = Workspace(choose_device(choice), Cache(), _report)
    return Runner(load_plugins(), Store(results), workspace)


def _report(message: str) -> None:
    print(f"    {message}", file=sys.stderr, flush=True)


def in_this_process(run_cell: RunCell, cells: Sequence[Cell]) -> Iterator[Ended]:
    """Run the cells one after another, here."""
    for cell in cells:
        try:
            run_cell(cell)
        except StoreError as error:
            yield Ended(cell, str(error))
        else:
            yield Ended(cell)


def run_by(executor: Executor, run_cell: RunCell, cells: Sequence[Cell]) -> Iterator[Ended]:
    """Run the cells as the executor does.

    Raises :class:`~dstbench.errors.PluginError` where it fails itself, which is none of its cells'
    doing.
    """

    def fail(told: str) -> None:
        raise PluginError(f"executor '{executor.name}' failed:\n{told}") from None

    with contained(fail, but=(DstbenchError,)):
        yield from executor.run(run_cell, cells)


def run_all(
    cells: Sequence[Cell],
    run: Callable[[RunCell, Sequence[Cell]], Iterator[Ended]],
    run_cell: CellRunner,
) -> None:
    """Run the cells until each has a new record, of this run or of another process's."""
    runner = run_cell.runner
    left = [cell for cell in cells if runner.attempt(runner.store.cell(cell).ask, cell)]
    tries: Counter[str] = Counter()
    while left:
        for ended in run(run_cell, left):
            if ended.error:
                version = run_cell.versions[ended.cell.id]
                runner.attempt(runner.bury, ended.cell, version, ended.error)
        left = _without_record(left, run_cell)
        free = {cell.id for cell in left if not runner.store.cell(cell).is_held()}
        tries.update(free)
        for cell in left:
            if tries[cell.id] == TRIES:
                runner.workspace.report(f"cell {cell.id} was run {TRIES} times without a record")
        left = [cell for cell in left if tries[cell.id] < TRIES]
        if left and not free:
            left = _wait(left, run_cell)


def _without_record(cells: Sequence[Cell], run_cell: CellRunner) -> list[Cell]:
    store = run_cell.runner.store
    return [cell for cell in cells if store.cell(cell).version() == run_cell.versions[cell.id]]


def _wait(cells: Sequence[Cell], run_cell: CellRunner) -> list[Cell]:
    """What is left when one of these cells, all held by other processes, is no longer."""
    runner = run_cell.runner
    runner.workspace.report(f"waiting for other processes, which are running {len(cells)} cells")
    while all(runner.store.cell(cell).is_held() for cell in cells):
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return _without_record(cells, run_cell)


@contextmanager
def time_limit(minutes: float | None, last_words: Path) -> Iterator[None]:
    """End this process if it is here for longer, with a traceback of all threads in that file.

    Nothing gentler stops what hangs, in C code perhaps.
    """
    if minutes is None:
        yield
        return
    with last_words.open("w") as file:
        faulthandler.dump_traceback_later(60 * minutes, exit=True, file=file)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            last_words.unlink(missing_ok=True)
