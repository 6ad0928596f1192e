"""What a job does."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from types import FrameType
from typing import Any

from dstbench.contracts import RunCell
from dstbench.errors import ConfigError
from dstbench.grid import Cell
from dstbench.store import Store

FRUITLESS = 3
"""Jobs in a row that may use up their time without a checkpoint."""


class Turn:
    """The turn of a cell, over all jobs that it takes: each but the first goes on with this object,
    as :meth:`checkpoint` has left it.
    """

    def __init__(self, run_cell: RunCell, threads: int, minutes: int) -> None:
        self.run_cell = run_cell
        self.threads = threads
        self.minutes = minutes
        """Time limit of a job."""
        self.fruitless = 0
        """Jobs in a row that used up their time and left no new checkpoint."""

    def __call__(self, cell: Cell) -> None:
        import torch

        if self.run_cell.threads is None:
            torch.set_num_threads(self.threads)
        self.begin(cell)
        _leave_at_once_when_told_to()
        self.run_cell(cell)

    def begin(self, cell: Cell) -> None:
        """Note when this job began, and with which checkpoint."""
        self.began = time.monotonic()
        self.checkpointed = self._checkpointed(cell)

    def checkpoint(self, cell: Cell) -> Any:
        """What the next job is to do; submitit calls it before it queues this job again.

        Raises :class:`~dstbench.errors.ConfigError`, which makes the cell a failed one, where jobs
        are too short for it.
        """
        from submitit.helpers import DelayedSubmission

        used_up = time.monotonic() - self.began > 60 * self.minutes / 2
        if self._checkpointed(cell) != self.checkpointed:
            self.fruitless = 0
        elif used_up:  # and not preempted
            self.fruitless += 1
        if self.fruitless == FRUITLESS:
            raise ConfigError(
                f"{FRUITLESS} jobs of {self.minutes} minutes left no new checkpoint; more "
                "executors.slurm.minutes, or fewer training.checkpoint_minutes would be right"
            )
        return DelayedSubmission(self, cell)

    def _checkpointed(self, cell: Cell) -> int | None:
        with suppress(OSError):
            return Store(self.run_cell.results).cell(cell).checkpoint.stat().st_mtime_ns
        return None


def _leave_at_once_when_told_to() -> None:
    """End the process where submitit, having queued the job again, would raise SystemExit.

    That would come up in the middle of training, and be taken for a failure of the cell.
    """
    from submitit import JobEnvironment

    number = signal.Signals[f"SIG{JobEnvironment.USR_SIG}"]
    queue_again: Any = signal.getsignal(number)

    def handle(signal_number: int, frame: FrameType | None) -> None:
        try:
            queue_again(signal_number, frame)
        except SystemExit as request:
            os._exit(request.code if isinstance(request.code, int) and request.code > 0 else 1)

    signal.signal(number, handle)
