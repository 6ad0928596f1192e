"""How results get into the results folder: every node sees it, or they are delivered there."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

from dstbench.cache import digest
from dstbench.contracts import RunCell
from dstbench.errors import HeldError
from dstbench.grid import Cell
from dstbench.plugins import PINS
from dstbench.store import CellFolder, RecordVersion, Store
from dstbench_ray.files import File, read, unpack
from dstbench_ray.nodes import run_apart, run_shared


class Shared:
    """Every node sees the results folder, where ``run_cell`` does all that is to be done."""

    function = staticmethod(run_shared)

    def __init__(self, run_cell: RunCell, cells: Sequence[Cell]) -> None:
        self.run_cell = run_cell
        folder = run_cell.results.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        self.landmark = folder / f".seen-by-nodes-{uuid4().hex}"
        self.landmark.touch()

    def environment(self) -> dict[str, str]:
        """Variables that are to be the same on the nodes."""
        return {name: text for name, text in os.environ.items() if name.startswith("DSTBENCH_")}

    def arguments(self, cell: Cell) -> tuple[Any, ...]:
        """The last arguments of :attr:`function`, for the turn of a cell."""
        return (self.landmark,)

    def expect(self, cell: Cell) -> None:
        """There is nothing to receive."""

    def close(self) -> None:
        self.landmark.unlink(missing_ok=True)


class Apart:
    """Results are on the nodes first. What one needs to go on from a checkpoint is sent along."""

    function = staticmethod(run_apart)

    def __init__(self, run_cell: RunCell, cells: Sequence[Cell]) -> None:
        self.run_cell = run_cell
        self.store = Store(run_cell.results)
        self.versions = {cell.id: self.store.cell(cell).version() for cell in cells}
        """The version of each cell's record at the start of the run, by cell id."""
        whose = {"host": socket.gethostname(), "results": str(run_cell.results.absolute())}
        self.name = digest(whose)[:16]

    def environment(self) -> dict[str, str]:
        """Variables that are to be the same on the nodes: none that names a folder."""
        return {PINS: os.environ[PINS]} if PINS in os.environ else {}

    def arguments(self, cell: Cell) -> tuple[Any, ...]:
        """The last arguments of :attr:`function`, for the turn of a cell."""
        folder = self.store.cell(cell)
        latest = folder.checkpoints[:1]
        tables = [path for path in (folder.history, folder.topology) if latest and path.exists()]
        files = [read(path) for path in (*latest, *tables)]
        return self.name, files

    def expect(self, cell: Cell) -> Delivery:
        """The way for the files of a cell into its folder.

        Raises :class:`~dstbench.errors.HeldError` if another process was quicker with the cell.
        """
        return Delivery(self.store.cell(cell), self.versions[cell.id])

    def close(self) -> None:
        pass


class Delivery:
    """The way of files into a cell's folder, which is held until :meth:`close`."""

    def __init__(self, folder: CellFolder, version: RecordVersion | None) -> None:
        self.folder = folder
        self.version = version
        with ExitStack() as stack:
            stack.enter_context(folder.locked())
            if folder.version() != version:
                raise HeldError(f"cell {folder.path.name} was run by another process")
            self.close: Callable[[], None] = stack.pop_all().close

    def receive(self, file: File) -> None:
        """Write a file; the record comes last."""
        unpack([file], self.folder.path)
        if self.folder.version() != self.version:
            record = self.folder.record()
            if record and record.is_final:
                self.folder.remove_checkpoints()  # the one that was sent along
