"""The run of a grid: its cells are given to an executor until each has a record."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from dstbench.cell import Cell
from dstbench.contracts import Availability, Ended, Executor, RunCell
from dstbench.errors import DstbenchError, PluginError, StoreError
from dstbench.execution import in_this_process
from dstbench.execution.pipeline import Pipeline
from dstbench.execution.preflight import Preflight
from dstbench.execution.requirements import Requirement
from dstbench.execution.tracking import Trackers
from dstbench.execution.worker import RunOptions, Worker
from dstbench.plugins.isolation import isolate
from dstbench.records import Record
from dstbench.store.folder import RecordVersion
from dstbench.store.store import Store

TRIES = 3
"""Number of times that a cell is run which leaves no record, although its process was well."""

SECONDS_BETWEEN_LOOKS = 1
"""Pause between two looks at cells that other processes are running."""

Run = Callable[[RunCell, Sequence[Cell]], Iterator[Ended]]


@dataclass
class Scheduler:
    """Runs the cells of a grid that have no result yet, and keeps all records in a store."""

    store: Store
    pipeline: Pipeline
    options: RunOptions = field(default_factory=RunOptions)

    def availability(self, cells: Sequence[Cell]) -> list[tuple[Requirement, Availability]]:
        """What those of the cells require that have no result, and whether it is there."""
        return self._preflight.availability([cell for cell in cells if self.store.is_open(cell)])

    def run(
        self, cells: Sequence[Cell], *, download: bool = False, executor: Executor | None = None
    ) -> list[Record]:
        """The record of every cell; those that have a result already are not run again.

        A cell whose data is not there is recorded as skipped, one that fails (any of its plugins
        may, in any way) as failed, and the others go on; both are tried again on the next run.
        What can be downloaded is not there unless ``download`` is asked for, which is then done
        before anything is trained. A cell that another process is running is waited for, and taken
        over if that process ends without a record. A cell is sampled as ``[[evaluation.also]]``
        says where it is trained, or here if it was trained before.

        Without an ``executor`` cells are run in this process, one after another. A time limit
        takes one that runs them in others, since it ends the process of a cell.

        Raises:
            DataError: before anything is trained, if a dataset cannot be loaded or is too small.
            ScoreError: before anything is trained, if there will be too few images to score.
            PluginError: if the executor fails.
            StoreError: before anything is trained, if no results can be written.
        """
        open_cells = [cell for cell in cells if self.store.is_open(cell)]
        if open_cells:
            self.store.require_writable()
        unable = self._preflight.unable(open_cells, download)
        to_run = [cell for cell in open_cells if cell.id not in unable and self.store.is_open(cell)]
        versions = {cell.id: self.store.cell(cell).version() for cell in to_run}
        worker = Worker(self.store, self.pipeline, self.options, versions)
        for cell in open_cells:
            if cell.id in unable:
                self._attempt(worker.leave_out, cell, *unable[cell.id])
        run = in_this_process if executor is None else _by(executor)
        if to_run:
            with self._tracked(to_run, versions) as options:
                worker = Worker(self.store, self.pipeline, options, versions)
                self._run_all(to_run, worker, run)
        self._sample_otherwise(cells, worker, download)
        return list(self.store.readable(cells, self._report))

    @contextmanager
    def _tracked(
        self, cells: Sequence[Cell], versions: Mapping[str, RecordVersion | None]
    ) -> Iterator[RunOptions]:
        """Tell of the run of these cells, whose records had such versions; the options for it."""

        def made() -> list[Record]:
            new = [c for c in cells if self.store.cell(c).version() != versions[c.id]]
            return list(self.store.readable(new, self._report))

        tracking, plugins = self.options.tracking, self.pipeline.plugins
        trackers = Trackers(tracking, plugins, self.store.folder, self._report)
        with trackers.told_of_run(cells, made) as worth_telling:
            yield replace(self.options, tracking=worth_telling)

    def _sample_otherwise(self, cells: Sequence[Cell], worker: Worker, download: bool) -> None:
        left = [cell for cell in cells if worker.has_more_to_sample(cell)]
        try:
            unable = self._preflight.unable(left, download) if left else {}
        except DstbenchError as error:
            self._report(f"{len(left)} cells are not sampled in other ways: {error}")
            return
        for cell in left:
            if cell.id in unable:
                self._report(f"{cell.id}: not sampled in other ways: {unable[cell.id][1]}")
            else:
                worker.sample_otherwise(cell)

    @property
    def _preflight(self) -> Preflight:
        return Preflight(self.pipeline, self.options.minutes)

    def _run_all(self, cells: Sequence[Cell], worker: Worker, run: Run) -> None:
        """Run the cells until each has a new record, of this run or of another process's."""
        left = [cell for cell in cells if self._attempt(self.store.cell(cell).request, cell)]
        tries: Counter[str] = Counter()
        while left:
            for ended in run(worker, left):
                if ended.error:
                    self._attempt(worker.mark_failed, ended.cell, ended.error)
            left = self._without_record(left, worker)
            free = {cell.id for cell in left if not self.store.cell(cell).is_held()}
            tries.update(free)
            for cell in left:
                if tries[cell.id] == TRIES:
                    self._report(f"cell {cell.id} was run {TRIES} times without a record")
            left = [cell for cell in left if tries[cell.id] < TRIES]
            if left and not free:
                left = self._wait(left, worker)

    def _without_record(self, cells: Sequence[Cell], worker: Worker) -> list[Cell]:
        """Those that have no other record than at the start of the run."""
        return [c for c in cells if self.store.cell(c).version() == worker.versions[c.id]]

    def _wait(self, cells: Sequence[Cell], worker: Worker) -> list[Cell]:
        """What is left when one of these cells, all held by other processes, is no longer."""
        self._report(f"waiting for other processes, which are running {len(cells)} cells")
        while all(self.store.cell(cell).is_held() for cell in cells):
            time.sleep(SECONDS_BETWEEN_LOOKS)
        return self._without_record(cells, worker)

    def _attempt(self, function: Callable[..., object], *arguments: object) -> bool:
        """Call what writes to the store; say whether that worked, and report why not."""
        try:
            function(*arguments)
        except StoreError as error:
            self._report(str(error))
            return False
        return True

    def _report(self, message: str) -> None:
        self.pipeline.workspace.report(message)


def _by(executor: Executor) -> Run:
    """The cells run as the executor does.

    Raises :class:`~dstbench.errors.PluginError` where it fails itself, which is none of its cells'
    doing.
    """

    def fail(told: str) -> None:
        raise PluginError(f"executor '{executor.name}' failed:\n{told}") from None

    def run(run_cell: RunCell, cells: Sequence[Cell]) -> Iterator[Ended]:
        with isolate(fail, but=(DstbenchError,)):
            yield from executor.run(run_cell, cells)

    return run
