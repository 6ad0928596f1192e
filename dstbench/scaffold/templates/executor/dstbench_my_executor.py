"""my-executor, an executor for dstbench."""

from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, ClassVar

from dstbench import hookimpl
from dstbench.contracts import Ended, Executor, PluginSettings, RunCell
from dstbench.errors import DstbenchError
from dstbench.grid import Cell
from pydantic import Field

SPAWN = get_context("spawn")  # CUDA does not survive a fork


class MyExecutor(Executor["MyExecutor.Settings"]):
    """Processes of this machine, a new one for each cell.

    CHANGE THIS: say where yours runs cells, and what it needs. `dstbench plugins` prints the first
    line.
    """

    name = "my-executor"

    class Settings(PluginSettings):
        # CHANGE THIS: what a benchmark may set under [executors.my-executor].
        jobs: int = Field(2, ge=1, description="cells at a time")

    trial_settings: ClassVar[Mapping[str, Any]] = {"jobs": 2}

    def run(self, run_cell: RunCell, cells: Sequence[Cell]) -> Iterator[Ended]:
        waiting = list(cells)
        running: dict[Connection, tuple[Cell, SpawnProcess]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self.settings.jobs:
                    cell = waiting.pop(0)
                    connection, process = _start(run_cell, cell)
                    running[connection] = cell, process
                for connection in [each for each in wait(list(running)) if each in running]:
                    cell, process = running.pop(connection)
                    process.join()
                    yield Ended(cell, _error(connection, process))
        finally:  # also where nobody wants to know of further cells
            for _, process in running.values():
                process.terminate()  # in training, once a checkpoint is saved
            for _, process in running.values():
                process.join()


def _start(run_cell: RunCell, cell: Cell) -> tuple[Connection, SpawnProcess]:
    # CHANGE THIS: run_cell can be pickled, and called with a cell in any process of any machine
    # that sees run_cell.results. Whatever happens to the cell, it leaves a record there.
    ours, theirs = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=_call, args=(run_cell, cell, theirs))
    process.start()
    theirs.close()
    return ours, process


def _call(run_cell: RunCell, cell: Cell, connection: Connection) -> None:
    try:
        run_cell(cell)
    except DstbenchError as error:  # no record could be left: the disk is full, perhaps
        connection.send(str(error))
    else:
        connection.send(None)


def _error(connection: Connection, process: SpawnProcess) -> str | None:
    """Why a cell's call never returned; None: it did."""
    try:
        error: str | None = connection.recv()
    except EOFError:
        return f"its process died, with exit code {process.exitcode}"
    return error


@hookimpl
def dstbench_executors() -> list[type[Executor]]:
    return [MyExecutor]
