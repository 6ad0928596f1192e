"""The folder of one benchmark's results."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pydantic import ValidationError

from dstbench.cell import Cell
from dstbench.errors import StoreError
from dstbench.files import read_regular
from dstbench.records import Record
from dstbench.store.files import write_atomically
from dstbench.store.folder import CellFolder
from dstbench.store.index import RecordIndex
from dstbench.store.layout import Layout
from dstbench.store.rescored import rescored

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LAYOUT = "layout.json"
LONGEST_LAYOUT = 2**22
"""Bytes of it at most; what is larger is something else."""

logger = logging.getLogger("dstbench")


class Store:
    """The folder of one benchmark's results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._index = RecordIndex(folder)

    def cell(self, cell: Cell) -> CellFolder:
        return CellFolder(self.folder / "cells" / cell.id)

    def cells(self) -> list[CellFolder]:
        """The folders of all cells that were ever asked for, by their names."""
        return [CellFolder(self.folder / "cells" / name) for name in self.names()]

    def names(self) -> list[str]:
        """The names of these folders."""
        try:
            with os.scandir(self.folder / "cells") as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except OSError:
            return []

    def record(self, name: str) -> Record | None:
        """The record in a cell's folder, if it has ended; it is parsed once while it stays the
        same.

        Raises :class:`StoreError` for a record that this version of dstbench cannot read.
        """
        return self._index.record(name)

    def keep_index(self) -> None:
        """Keep the records that were read in one file beside them, where they are many."""
        self._index.save()

    def require_writable(self) -> None:
        """Raise :class:`StoreError` if no cell can be run here, because nothing can be written."""
        cells = self.folder / "cells"
        there = next(each for each in (cells, *cells.absolute().parents) if each.exists())
        reason: str | None = None
        if not there.is_dir():
            reason = f"{there} is not a folder"
        else:
            try:  # rights are not all there is to it
                with TemporaryDirectory(prefix=".dstbench-", dir=there) as inside:
                    reason = _why_no_locks(Path(inside))
            except OSError as error:
                reason = f"{there} may not be written to ({error.strerror})"
        if reason:
            raise StoreError(
                f"{self.folder}: no results can be kept here: {reason}; name another folder with "
                "--results"
            )

    def is_open(self, cell: Cell) -> bool:
        """Whether the cell is to be run: it has no final record, and none that cannot be read."""
        with suppress(StoreError):
            record = self.record(cell.id)
            return record is None or not record.is_final
        return False

    def readable(self, cells: Sequence[Cell], report: Callable[[str], None]) -> Iterator[Record]:
        """The records of those of the cells that have ended; what is wrong with those that cannot
        be read is reported."""
        for cell in cells:
            try:
                record = self.record(cell.id)
            except StoreError as error:
                report(str(error))
            else:
                if record:
                    yield record

    def of_conditions(self, cells: Sequence[Cell]) -> Iterator[Record]:
        """The final records of other cells that one table can hold beside these: those that differ
        from one of them in sparsifier, its settings, sparsity and seed alone. Records that cannot
        be read are left out."""
        ids = {cell.id for cell in cells}
        others = [name for name in self.names() if name not in ids]
        kin = {cell.kin for cell in cells} if others else set()
        for name in others:
            with suppress(StoreError):
                record = self._own_record(name)
                if record and record.is_final and record.cell.kin in kin:
                    yield record

    def layout(self) -> Layout:
        """The layout of the leaderboard as the latest run had it; the default where none is known,
        or readable."""
        with suppress(OSError, ValidationError):
            return Layout.model_validate_json(read_regular(self.folder / LAYOUT, LONGEST_LAYOUT))
        return Layout()

    def write_layout(self, layout: Layout) -> None:
        text = layout.model_dump_json(indent=2) + "\n"
        write_atomically(self.folder / LAYOUT, lambda path: path.write_text(text, encoding="utf-8"))

    def remove_pending_others(self, cells: Sequence[Cell]) -> None:
        """Remove the requests for cells beside these that were never begun, of an earlier
        benchmark file perhaps."""
        ids = {cell.id for cell in cells}
        for name in self.names():
            if name not in ids:
                CellFolder(self.folder / "cells" / name).remove_if_pending()

    def clear_away(self, cells: Sequence[Cell]) -> None:
        """Remove what processes have left of these cells that were killed when those were done, as
        their claims tell."""
        for cell in cells:
            folder = self.cell(cell)
            if folder.has_claim() and not self.is_open(cell):
                with suppress(StoreError), folder.locked():
                    if not self.is_open(cell):
                        folder.remove_checkpoints()

    def records(self) -> list[Record]:
        """The records of all ended cells, in the order in which they were run; those that cannot
        be read are left out, with a warning.

        Raises :class:`StoreError` if there are none.
        """
        found: list[Record] = []
        problems: list[str] = []
        for name in self.names():
            try:
                record = self._own_record(name)
            except StoreError as error:
                problems.append(str(error))
            else:
                found += [record] if record else []
        if not found:
            listed = "".join(f"\n{problem}" for problem in problems)
            raise StoreError(
                f"{self.folder}: no records here; name the folder of a benchmark that was run, "
                f"such as results/quickstart{listed}"
            )
        for problem in problems:
            logger.warning("%s", problem)
        self.keep_index()
        return sorted(found, key=lambda record: record.started)

    def _own_record(self, name: str) -> Record | None:
        """As :meth:`record`; :class:`StoreError` for a copy of another cell's folder."""
        record = self.record(name)
        if record and record.cell.id != name and self.cell(record.cell).path.exists():
            folder = self.folder / "cells" / name
            raise StoreError(f"{folder}: left out: a copy of {record.cell.id}, which is there, too")
        return record

    def rescored(self, records: Sequence[Record]) -> list[Record]:
        """What these records' cells score under other evaluations than their own; a cell that was
        also run so, or scored so twice, counts once."""
        found: dict[str, Record] = {}
        for record in records:
            if record.status == "done":
                for again in rescored(self.cell(record.cell)):
                    found.setdefault(again.cell.id, again)
        known = {record.cell.id for record in records} if found else set()
        return [again for id, again in found.items() if id not in known]

    def samples(self, records: Sequence[Record]) -> dict[str, NDArray[np.uint8]]:
        """The sample images of these records' cells, where they have any, by cell id; those that
        cannot be read are left out, with a warning."""
        return self._images(records, lambda cell: cell.samples)

    def reals(self, records: Sequence[Record]) -> dict[str, NDArray[np.uint8]]:
        """The real images beside which these records' cells were scored, where any are kept and
        can be read, by cell id."""
        return self._images(records, lambda cell: cell.reals)

    def neighbours(self, records: Sequence[Record]) -> dict[str, NDArray[np.uint8]]:
        """The training images nearest to the first of :meth:`samples`, by cell id."""
        return self._images(records, lambda cell: cell.neighbours)

    def _images(
        self,
        records: Sequence[Record],
        path: Callable[[CellFolder], Path],
    ) -> dict[str, NDArray[np.uint8]]:
        found = {}
        for record in records:
            folder = self.cell(record.cell)
            if path(folder).exists():
                try:
                    found[record.cell.id] = folder.read_images(path(folder))
                except StoreError as error:
                    logger.warning("%s", error)
        return found


def _why_no_locks(folder: Path) -> str | None:
    """Why files in a new folder cannot be locked; ``None``: they can.

    Some network file systems have no locks, or are mounted without: nothing would tell a cell that
    is being run from one whose process has died.
    """
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return f"files in {folder.parent} cannot be locked ({error.strerror})"
    return None
