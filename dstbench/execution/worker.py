"""What runs a cell, in whatever process, and keeps its record."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from threading import RLock
from typing import Any

import cloudpickle
import torch

from dstbench.cache import Cache, canonical
from dstbench.cell import SMALL_DENSE, Cell
from dstbench.contracts import Workspace
from dstbench.disk import unwritable
from dstbench.errors import DataError, DivergedError, HeldError, StoreError
from dstbench.execution.log_file import report_into
from dstbench.execution.machine import choose_device, environment
from dstbench.execution.outline import parameters
from dstbench.execution.pipeline import Pipeline
from dstbench.execution.preflight import Unable
from dstbench.execution.rescoring import rescore, unsampled
from dstbench.execution.time_limit import time_limit
from dstbench.execution.tracking import Trackers, Tracking
from dstbench.execution.versions import require_versions
from dstbench.plugins.isolation import FAILURES
from dstbench.plugins.registry import load_plugins
from dstbench.records import Environment, Record
from dstbench.store.files import now
from dstbench.store.folder import CellFolder, RecordVersion
from dstbench.store.store import Store


@dataclass(frozen=True)
class RunOptions:
    """How cells are run; none of it changes what they are."""

    device: str | None = None
    """How each process that an executor starts chooses its device (``auto``, ``cpu``, …);
    ``None``: as this one has it."""
    threads: int | None = None
    """CPU threads of each process that an executor starts; ``None``: left to the executor."""
    minutes: float | None = None
    """Time limit of a cell, which ends its process; ``None``: no limit."""
    measure_seconds: float = 0
    """How long at most each sparse cell is timed against its dense twin; 0: not at all."""
    tracking: Tracking = field(default_factory=Tracking)
    """The trackers to be told of what happens."""
    log_file: Path | None = None
    """File to which each process that an executor starts adds what it reports."""


turn = RLock()
"""The turn of a thread to run a cell: weights and dropout are drawn from generators that all
threads of a process share, so that cells are run one after another in each process. A listener may
run another cell in its own turn."""


class Worker:
    """Runs cells and keeps their records: the :class:`~dstbench.contracts.RunCell` that executors
    are given.

    Pickled, it becomes the worker of the process that unpickles it, with plugins and data of its
    own. Classes that no distribution brings go with it as they are, those of a notebook too.
    """

    def __init__(
        self,
        store: Store,
        pipeline: Pipeline,
        options: RunOptions | None = None,
        versions: Mapping[str, RecordVersion | None] | None = None,
    ) -> None:
        """
        Args:
            versions: of the records at the start of the run, by cell id: a cell that has another
                one was run by somebody else meanwhile.
        """
        self.store = store
        self.pipeline = pipeline
        options = options or RunOptions()
        self.options = replace(options, device=options.device or self.device)
        self.versions = versions or {}
        self._parameters: dict[str, int | None] = {}
        self._trackers = Trackers(
            self.options.tracking, pipeline.plugins, self.results, self.report
        )

    @property
    def results(self) -> Path:
        return self.store.folder

    @property
    def device(self) -> str:
        return str(self.pipeline.workspace.device)

    @property
    def minutes(self) -> float | None:
        return self.options.minutes

    @property
    def threads(self) -> int | None:
        return self.options.threads

    def __call__(self, cell: Cell) -> None:
        with suppress(HeldError):
            self.run(cell)

    def into(self, results: Path) -> Worker:
        return _in_this_process(results.absolute(), self.options, self._given(), {})

    def parameters(self, cell: Cell) -> int | None:
        on = [cell.model, cell.model_settings, cell.dataset, cell.dataset_settings]
        network = canonical([*on, cell.sparsity if cell.sparsifier == SMALL_DENSE else 0])
        if network not in self._parameters:
            try:
                self._parameters[network] = parameters(cell, self.pipeline.plugins)
            except FAILURES:  # the cell itself will say why
                self._parameters[network] = None
        return self._parameters[network]

    def report(self, message: str) -> None:
        self.pipeline.workspace.report(message)

    def __reduce__(self) -> tuple[Any, ...]:
        where = self.results.absolute()
        return _in_this_process, (where, self.options, self._given(), self.versions)

    def _given(self) -> bytes:
        """The plugins that were given as classes, pickled."""
        given: bytes = cloudpickle.dumps(self.pipeline.plugins.given)
        return given

    def run(self, cell: Cell) -> None:
        """Run a cell, unless it has another record by now: another process was quicker.

        Raises:
            HeldError: if another process is running it.
            StoreError: if nothing can be written there.
        """
        folder = self.store.cell(cell)
        with self._trackers.told_of(cell, folder):
            record = self._run(cell, folder)
            if record is None:
                return
            self.sample_otherwise(cell)
            try:
                self.pipeline.plugins.manager.hook.dstbench_cell_finished(cell=cell, record=record)
            except FAILURES:  # of a listener's; the cell is well
                self.report(f"a plugin failed after {cell.id}:\n{traceback.format_exc()}")

    def _run(self, cell: Cell, folder: CellFolder) -> Record | None:
        """The record of a cell, once it is kept; ``None``: another process was quicker."""
        with turn, folder.locked(), _of_the_store(folder):
            if not self._is_as_it_was(cell, folder):
                return None
            if folder.timeout_traceback():
                record = self._timed_out(cell, folder)
            else:
                with time_limit(self.minutes, folder.timeout):
                    record = self._attempt(cell, folder)
            record = self._keep(record, folder)
            if record.is_final:
                folder.remove_checkpoints()
            return record

    def has_more_to_sample(self, cell: Cell) -> bool:
        """Whether :meth:`sample_otherwise` has something to do, or to tell."""
        with suppress(*FAILURES):
            return any(unsampled(self.pipeline, self.store.cell(cell), cell))
        return True

    def sample_otherwise(self, cell: Cell) -> None:
        """Score a trained cell as ``[[evaluation.also]]`` says, where it was not scored so before.
        What fails is told, and costs the cell nothing."""
        folder = self.store.cell(cell)
        try:
            with turn:
                for asked in unsampled(self.pipeline, folder, cell):
                    rescore(self.pipeline, folder, asked, trusted=True)
        except FAILURES as error:
            self.report(f"{cell.id}: not sampled in other ways: {type(error).__name__}: {error}")

    def _keep(self, record: Record, folder: CellFolder) -> Record:
        """Keep a record; one that could not be read back is that of a failure."""
        try:
            folder.write_record(record)
        except StoreError as error:
            record = self._without_result(record.cell, "failed", str(error))
            folder.write_record(record)
        return record

    def mark_failed(self, cell: Cell, error: str) -> None:
        """Record a cell as failed whose process died, unless another process has it by now.

        Raises :class:`StoreError` if nothing can be written there.
        """
        folder = self.store.cell(cell)
        with suppress(HeldError), folder.locked(), _of_the_store(folder):
            if self._is_as_it_was(cell, folder):
                folder.write_record(
                    self._timed_out(cell, folder)
                    if folder.timeout_traceback()
                    else self._without_result(cell, "failed", error)
                )

    def leave_out(self, cell: Cell, status: Unable, reason: str) -> None:
        """Record why a cell was not run; a checkpoint of it stays."""
        folder = self.store.cell(cell)
        with folder.locked(), _of_the_store(folder):
            record = folder.record()
            if record is None or not record.is_final:
                folder.write_record(self._without_result(cell, status, reason))

    def _is_as_it_was(self, cell: Cell, folder: CellFolder) -> bool:
        return folder.version() == self.versions.get(cell.id)

    def _attempt(self, cell: Cell, folder: CellFolder) -> Record:
        """Take the cell through the pipeline; its record, however that ends."""
        started = now()
        outcome: dict[str, Any]
        try:
            require_versions(cell, self.pipeline.plugins)
            self.pipeline.plugins.manager.hook.dstbench_cell_started(cell=cell)
            parts = self.pipeline.run(cell, folder, self.options.measure_seconds)
            return self._record(cell, started, status="done", **parts)
        except DivergedError as error:
            outcome = {"status": "diverged", "error": str(error)}
        except DataError as error:  # of what the model needs beside the dataset
            outcome = {"status": "skipped", "error": str(error)}
        except StoreError as error:  # in a line: a full disk, a folder that is gone
            outcome = {"status": "failed", "error": str(error)}
        except FAILURES as error:
            reason = unwritable(error, self.results)
            outcome = {
                "status": "failed",
                "error": f"{self.results}: {reason}" if reason else traceback.format_exc(),
            }
        return self._record(cell, started, **outcome)

    def _record(self, cell: Cell, started: str, **parts: Any) -> Record:
        return Record(cell=cell, started=started, environment=self._environment, **parts)

    def _timed_out(self, cell: Cell, folder: CellFolder) -> Record:
        """The record of a cell whose time limit ended its process."""
        where = folder.timeout_traceback()
        folder.timeout.unlink(missing_ok=True)
        return self._without_result(
            cell,
            "failed",
            f"{where}\nstopped by the benchmark's time limit, where the traceback says; the next "
            "run goes on from its checkpoint",
        )

    def _without_result(self, cell: Cell, status: Unable, reason: str) -> Record:
        return Record(
            cell=cell, status=status, error=reason, started=now(), environment=self._environment
        )

    @property
    def _environment(self) -> Environment:
        return environment(self.pipeline.workspace.device)


@contextmanager
def _of_the_store(folder: CellFolder) -> Iterator[None]:
    """Raise :class:`StoreError` for what the operating system does not allow in a cell's folder,
    which is no fault of the executor's."""
    try:
        yield
    except OSError as error:
        reason = unwritable(error, folder.path) or error.strerror or error
        raise StoreError(f"{folder.path}: cannot be written to: {reason}") from error


def _in_this_process(
    results: Path,
    options: RunOptions,
    given: bytes,
    versions: Mapping[str, RecordVersion | None],
) -> Worker:
    pipeline = _pipeline(options.device, options.threads, given, options.log_file)
    return Worker(Store(results), pipeline, options, versions)


@lru_cache
def _pipeline(
    device: str | None, threads: int | None, given: bytes, log_file: Path | None
) -> Pipeline:
    """The pipeline of this process."""
    if threads is not None:
        torch.set_num_threads(threads)
    plugins = load_plugins(cloudpickle.loads(given))
    report = _print if log_file is None else report_into(log_file, _print)
    return Pipeline(plugins, Workspace(choose_device(device or "auto"), Cache(), report))


def _print(message: str) -> None:
    sys.stderr.write(f"    {message}\n")  # at once: other processes write there, too
    sys.stderr.flush()
