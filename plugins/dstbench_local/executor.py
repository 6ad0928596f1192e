"""A few worker processes, each with its share of threads, or a GPU of its own."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, zip_longest
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from threading import Thread
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from dstbench.contracts import Ended, Executor, PluginSettings, RunCell
from dstbench.execution import in_this_process
from dstbench.grid import Cell
from dstbench.parallel import MOST
from dstbench_local.shares import Share, divide, told

VISIBLE = "CUDA_VISIBLE_DEVICES"

SECONDS_TO_END = 10
"""Time that idle processes have to end, before they are killed."""

SECONDS_TO_SAVE = 300
"""Time that a process has to take its cell to the end of a step, and to save a checkpoint."""


class Local(Executor):
    """Processes of this machine (one per GPU, or this one alone), to which cells are dealt out.

    The CPU's threads are divided among them. A cell whose process dies has failed; a new process
    goes on with the others.
    """

    name = "local"

    class Settings(PluginSettings):
        jobs: Annotated[int, Field(ge=1, le=MOST)] | Literal["auto"] | None = Field(
            None,
            description='cells at a time, each in a process; "auto": one per GPU, without GPUs '
            "one-thread processes on all cores for networks of fewer than 10 million parameters, "
            'and larger ones one at a time; none: "auto" from the command line, in Python one per '
            "GPU, without GPUs one",
        )

    trial_settings: ClassVar[Mapping[str, Any]] = {"jobs": 2}

    def run(self, run_cell: RunCell, cells: Sequence[Cell]) -> Iterator[Ended]:
        gpus = _gpus() if run_cell.device == "cuda" else []
        if self.settings.jobs == "auto" and run_cell.device == "cpu":
            shares = divide(run_cell, cells)
            if len(cells) > 1:
                run_cell.report(told(shares))
        else:
            asked = self.settings.jobs if isinstance(self.settings.jobs, int) else None
            jobs = min(asked or len(gpus) or 1, max(1, len(cells)))
            shares = [Share(cells, jobs, run_cell.threads or _threads(jobs))]
        for share in shares:
            if share.jobs == 1 and run_cell.minutes is None:
                with _threads_here(share.threads):
                    yield from in_this_process(run_cell, share.cells)
            else:
                yield from _in_processes(run_cell, share, gpus)


def _in_processes(run_cell: RunCell, share: Share, gpus: Sequence[str]) -> Iterator[Ended]:
    workers = [
        _Worker(run_cell, share.threads, gpus[job % len(gpus)] if gpus else None)
        for job in range(share.jobs)
    ]
    idle = list(workers)
    busy: dict[Connection, tuple[_Worker, Cell]] = {}
    left = deque(_by_turns(share.cells) if share.jobs > 1 else share.cells)
    try:
        while left or busy:
            while left and idle:
                worker, cell = idle.pop(), left.popleft()
                busy[worker.start(cell)] = worker, cell
            ready = wait(list(busy))
            for connection in [each for each in busy if each in ready]:
                worker, cell = busy.pop(connection)
                yield Ended(cell, worker.outcome())
                idle.append(worker)
    finally:
        for worker, _ in busy.values():
            worker.interrupt()
        _end(workers, SECONDS_TO_SAVE if busy else SECONDS_TO_END)


class _Worker:
    """A process that runs one cell after another, and another process after that has died."""

    def __init__(self, run_cell: RunCell, threads: int, gpu: str | None) -> None:
        self.run_cell = run_cell
        self.threads = threads
        self.gpu = gpu
        self.process: SpawnProcess | None = None
        self.connection: Connection

    def start(self, cell: Cell) -> Connection:
        """Run a cell; there is something to receive when :meth:`outcome` is known."""
        if self.process is None or not self.process.is_alive():
            context = get_context("spawn")  # CUDA does not survive a fork
            self.connection, theirs = context.Pipe()
            self.process = context.Process(target=_serve, args=(theirs, self.threads, self.gpu))
            self.process.start()
            theirs.close()
            self.connection.send(self.run_cell)
        self.connection.send(cell)
        return self.connection

    def outcome(self) -> str | None:
        """Why the cell could not be brought to its end; ``None``: it was."""
        assert self.process is not None
        try:
            error: str | None = self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            return f"its process died: {_cause(self.process.exitcode or 0)}"
        return error

    def interrupt(self) -> None:
        """Raise ``KeyboardInterrupt`` in the cell: where it is trained, when it has saved a
        checkpoint of the step that it takes."""
        assert self.process is not None
        self.process.terminate()


def _end(workers: Sequence[_Worker], seconds: float) -> None:
    """End all processes, by force only where they do not end in time: what is killed leaves behind
    the semaphores that libraries made in it, of which a warning tells."""
    running = [(worker.connection, worker.process) for worker in workers if worker.process]
    deadline = time.monotonic() + seconds
    try:
        for connection, _ in running:
            connection.close()  # an idle process ends
        for _, process in running:
            process.join(max(0, deadline - time.monotonic()))
    finally:
        for _, process in running:
            process.kill()
            process.join()


def _serve(connection: Connection, threads: int, gpu: str | None) -> None:
    """The life of a worker process, until its parent gives no more cells or interrupts it."""
    for number in (signal.SIGINT, signal.SIGHUP):  # the parent's, which interrupts
        signal.signal(number, signal.SIG_IGN)
    Thread(target=_die_with_parent, daemon=True).start()
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # which fails no cell
        _run_cells(connection, threads, gpu)
    except (EOFError, ConnectionError):
        pass
    except KeyboardInterrupt:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends
        sys.exit(128 + signal.SIGTERM)


def _run_cells(connection: Connection, threads: int, gpu: str | None) -> None:
    """Run every cell that is received, and tell what becomes of it.

    Raises ``EOFError`` when there are no more.
    """
    if gpu is not None:
        os.environ[VISIBLE] = gpu  # before anything looks for GPUs

    import torch

    torch.set_num_threads(threads)
    run_cell: RunCell = connection.recv()
    while True:
        cell: Cell = connection.recv()
        try:
            run_cell(cell)
        except Exception:
            connection.send(traceback.format_exc())
        else:
            connection.send(None)


def _die_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _cause(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit code {exit_code}"
    name = signal.Signals(-exit_code).name
    return f"{name}, perhaps for want of memory" if name == "SIGKILL" else name


def _by_turns(cells: Sequence[Cell]) -> list[Cell]:
    """One cell of each task, then the next of each: cells of one task would wait for each other
    while the first of them prepares what they share."""
    tasks: dict[str, list[Cell]] = {}
    for cell in cells:
        tasks.setdefault(cell.task, []).append(cell)
    return [cell for cell in chain.from_iterable(zip_longest(*tasks.values())) if cell]


@contextmanager
def _threads_here(threads: int) -> Iterator[None]:
    """As many threads in this process as another would have; afterwards those that it had."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _threads(jobs: int) -> int:
    import torch

    return max(1, torch.get_num_threads() // jobs)


def _gpus() -> list[str]:
    """The GPUs that this process sees, as ``CUDA_VISIBLE_DEVICES`` names them."""
    import torch

    visible = os.environ.get(VISIBLE)
    return visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
