"""Executors that each break a promise: one that ``caught_by`` names."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from threading import Event, Thread
from typing import Any
from unittest.mock import patch

import torch
from pydantic import Field, field_validator
from wrong_plugins import Wrong

from dstbench.contracts import Ended, Executor, PluginSettings, RunCell
from dstbench.execution import worker
from dstbench.grid import Cell
from dstbench.plugins.isolation import isolate

CONTEXT = get_context("fork")


class RightExecutor(Executor):
    """Right: all cells at once, each in a process of its own."""

    name = "swarm"

    class Settings(PluginSettings):
        tries: int = Field(1, ge=1, description="how often a cell is run whose process dies")

    def run(self, run_cell: RunCell, cells: Sequence[Cell]) -> Iterator[Ended]:
        running = dict(self.start(run_cell, cell) for cell in cells)
        try:
            while running:
                for connection in wait(list(running)):
                    cell, process = running.pop(connection)  # type: ignore[call-overload]
                    process.join()
                    yield self.ended(cell, received(connection))
        finally:
            for _, process in running.values():
                self.stop(process)

    def start(self, run_cell: RunCell, cell: Cell) -> tuple[Connection, tuple[Cell, Any]]:
        ours, theirs = CONTEXT.Pipe()
        process = CONTEXT.Process(target=call, args=(run_cell, cell, theirs))
        process.start()
        theirs.close()
        return ours, (cell, process)

    def ended(self, cell: Cell, error: str | None) -> Any:
        return Ended(cell, error)

    def stop(self, process: Any) -> None:
        process.kill()
        process.join()


def call(run_cell: RunCell, cell: Cell, connection: Connection) -> None:
    errors: list[str | None] = [None]
    with isolate(errors.append):
        run_cell(cell)
    connection.send(errors[-1])


def received(connection: Any) -> str | None:
    try:
        error: str | None = connection.recv()
    except EOFError:
        return "its process died"
    return error


class Undocumented(Wrong, RightExecutor):
    """Has a setting without a description."""

    caught_by = "settings-are-documented"
    happens = "host: no description"

    class Settings(RightExecutor.Settings):
        host: str = "here"


class Open(Wrong, RightExecutor):
    """Takes any setting."""

    caught_by = "settings-are-validated"
    happens = "was not refused"

    class Settings(RightExecutor.Settings, extra="allow"):
        pass


class Growing(Wrong, RightExecutor):
    """A setting grows each time that it is read."""

    caught_by = "settings-survive-a-record"
    happens = "tries = 2 came back as 3"

    class Settings(RightExecutor.Settings):
        @field_validator("tries")
        @classmethod
        def _more(cls, value: int) -> int:
            return value + 1


class Forgetful(Wrong, RightExecutor):
    """Leaves out the last cell."""

    caught_by = "every-cell-is-run-once"
    happens = "returns-none-dense-0-3"

    def run(self, run_cell: RunCell, cells: Sequence[Cell]) -> Iterator[Ended]:
        return super().run(run_cell, cells[:-1])


class Repeating(Wrong, RightExecutor):
    """Tells of each cell twice."""

    caught_by = "every-cell-is-run-once"
    happens = "was told of twice"

    def run(self, run_cell: RunCell, cells: Sequence[Cell]) -> Iterator[Ended]:
        for ended in super().run(run_cell, cells):
            yield from (ended, ended)


class Careful(Wrong, RightExecutor):
    """Runs each cell twice, to be sure."""

    caught_by = "every-cell-is-run-once"
    happens = "run_cell was called 2 times for returns-none-dense-0-0"

    def start(self, run_cell: RunCell, cell: Cell) -> tuple[Connection, tuple[Cell, Any]]:
        run_cell(cell)
        return super().start(run_cell, cell)


class Early(Wrong, RightExecutor):
    """Tells of cells when they have begun."""

    caught_by = "every-cell-is-run-once"
    happens = "ended without an error, but its call never returned"

    def run(self, run_cell: RunCell, cells: Sequence[Cell]) -> Iterator[Ended]:
        yield from map(Ended, cells)
        list(super().run(run_cell, cells))


class Reseeding(Wrong, RightExecutor):
    """Runs other cells than it was given."""

    caught_by = "every-cell-is-run-once"
    happens = "ended without an error, but its call never returned"

    def start(self, run_cell: RunCell, cell: Cell) -> tuple[Connection, tuple[Cell, Any]]:
        connection, (_, process) = super().start(
            run_cell, cell.model_copy(update={"seed": cell.seed + 10})
        )
        return connection, (cell, process)


class Terse(Wrong, RightExecutor):
    """Gives the cells alone."""

    caught_by = "every-cell-is-run-once"
    happens = "no Ended"

    def ended(self, cell: Cell, error: str | None) -> Any:
        return cell


class Busy(Wrong, RightExecutor):
    """Expects to be given something."""

    caught_by = "no-cells-are-no-work"
    happens = "IndexError was raised"

    def run(self, run_cell: RunCell, cells: Sequence[Cell]) -> Iterator[Ended]:
        assert cells[0]
        return super().run(run_cell, cells)


class Tight(Wrong, RightExecutor):
    """Keeps to itself what went wrong."""

    caught_by = "an-exception-ends-its-cell-alone"
    happens = "but the error is: failed"

    def ended(self, cell: Cell, error: str | None) -> Any:
        return Ended(cell, error and "failed")


class Fragile(Wrong, RightExecutor):
    """Raises what a cell has raised."""

    caught_by = "an-exception-ends-its-cell-alone"
    happens = "RuntimeError was raised"

    def ended(self, cell: Cell, error: str | None) -> Any:
        if error:
            raise RuntimeError(error)
        return Ended(cell)


class Hopeful(Wrong, RightExecutor):
    """Takes a cell whose process died for one that is well."""

    caught_by = "a-dead-process-ends-its-cell-alone"
    happens = "ended without an error, but its call never returned"

    def ended(self, cell: Cell, error: str | None) -> Any:
        return Ended(cell, None if error == "its process died" else error)


class Contagious(Wrong, RightExecutor):
    """One death is the death of all."""

    caught_by = "a-dead-process-ends-its-cell-alone"
    happens = "ended with an error: somebody died"

    def run(self, run_cell: RunCell, cells: Sequence[Cell]) -> Iterator[Ended]:
        ended = list(super().run(run_cell, cells))
        died = any(each.error for each in ended)
        return (Ended(each.cell, "somebody died" if died else None) for each in ended)


class InThreads(RightExecutor):
    """Right: all cells at once, each in a thread of this process; they take turns in run_cell."""

    name = "threads"

    def run(self, run_cell: RunCell, cells: Sequence[Cell]) -> Iterator[Ended]:
        def ended(cell: Cell) -> Ended:
            errors: list[str | None] = [None]
            with isolate(errors.append):
                run_cell(cell)
            return Ended(cell, errors[-1])

        with ThreadPoolExecutor() as pool:
            yield from pool.map(ended, cells)


class Jumping(Wrong, InThreads):
    """Takes away the lock by which threads take turns, for more speed."""

    caught_by = "cells-draw-alone"
    happens = "drew other random numbers than alone in a process"

    def run(self, run_cell: RunCell, cells: Sequence[Cell]) -> Iterator[Ended]:
        with patch.object(worker, "turn", nullcontext()):
            yield from super().run(run_cell, cells)


class Reshuffling(Wrong, InThreads):
    """Draws waiting times from the generator that cells draw from."""

    caught_by = "cells-draw-alone"
    happens = "drew other random numbers than alone in a process"

    def run(self, run_cell: RunCell, cells: Sequence[Cell]) -> Iterator[Ended]:
        over = Event()

        def watch() -> None:
            while not over.wait(0.01 * torch.rand(()).item()):
                pass

        watcher = Thread(target=watch)
        watcher.start()
        try:
            yield from super().run(run_cell, cells)
        finally:
            over.set()
            watcher.join()


class Careless(Wrong, RightExecutor):
    """Leaves processes to themselves."""

    caught_by = "closing-leaves-no-process-behind"
    happens = "2 seconds after it was closed, a cell was still run"
    patience = 2.0

    def stop(self, process: Any) -> None:
        pass


class Mapping(Wrong, RightExecutor):
    """Cannot be closed."""

    caught_by = "closing-leaves-no-process-behind"
    happens = "gave a map, which cannot be closed"

    def run(self, run_cell: RunCell, cells: Sequence[Cell]) -> Any:
        return map(lambda ended: ended, super().run(run_cell, cells))  # noqa: C417
