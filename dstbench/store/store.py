"""The folder of one benchmark's results."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from dstbench.cache import canonical
from dstbench.cell import Cell
from dstbench.errors import StoreError
from dstbench.records import Record
from dstbench.store.files import write_atomically
from dstbench.store.folder import CellFolder
from dstbench.store.layout import Layout

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LAYOUT = "layout.json"

logger = logging.getLogger("dstbench")


class Store:
    """The folder of one benchmark's results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def cell(self, cell: Cell) -> CellFolder:
        return CellFolder(self.folder / "cells" / cell.id)

    def cells(self) -> list[CellFolder]:
        """The folders of all cells that were ever asked for, by their names."""
        return [CellFolder(path) for path in sorted((self.folder / "cells").glob("*/"))]

    def require_writable(self) -> None:
        """Raise :class:`StoreError` if no cell can be run here, because nothing can be written."""
        cells = self.folder / "cells"
        there = next(each for each in (cells, *cells.absolute().parents) if each.exists())
        reason = None
        if not there.is_dir():
            reason = f"{there} is not a folder"
        elif not os.access(there, os.W_OK | os.X_OK):
            reason = f"{there} may not be written to"
        if reason:
            raise StoreError(
                f"{self.folder}: no results can be kept here: {reason}; name another folder with "
                "--results"
            )

    def is_open(self, cell: Cell) -> bool:
        """Whether the cell is to be run: it has no final record, and none that cannot be read."""
        with suppress(StoreError):
            record = self.cell(cell).record()
            return record is None or not record.is_final
        return False

    def readable(self, cells: Sequence[Cell], report: Callable[[str], None]) -> Iterator[Record]:
        """The records of those of the cells that have ended; what is wrong with those that cannot
        be read is reported."""
        for cell in cells:
            try:
                record = self.cell(cell).record()
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
        conditions = {canonical(cell.conditions) for cell in cells}
        for folder in self.cells():
            if folder.path.name in ids:
                continue
            with suppress(StoreError):
                record = folder.record()
                if record and record.is_final and canonical(record.cell.conditions) in conditions:
                    yield record

    def layout(self) -> Layout:
        """The layout of the leaderboard as the latest run had it; the default where none is known,
        or readable."""
        with suppress(OSError, ValidationError):
            return Layout.model_validate_json((self.folder / LAYOUT).read_bytes())
        return Layout()

    def write_layout(self, layout: Layout) -> None:
        text = layout.model_dump_json(indent=2) + "\n"
        write_atomically(self.folder / LAYOUT, lambda path: path.write_text(text, encoding="utf-8"))

    def remove_pending_others(self, cells: Sequence[Cell]) -> None:
        """Remove the requests for cells beside these that were never begun, of an earlier
        benchmark file perhaps."""
        ids = {cell.id for cell in cells}
        for folder in self.cells():
            if folder.path.name not in ids:
                folder.remove_if_pending()

    def records(self) -> list[Record]:
        """The records of all ended cells, in the order in which they were run; those that cannot
        be read are left out, with a warning.

        Raises :class:`StoreError` if there are none.
        """
        found: list[Record] = []
        problems: list[str] = []
        for folder in self.cells():
            try:
                record = folder.record()
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
        return sorted(found, key=lambda record: record.started)

    def samples(self, records: Sequence[Record]) -> dict[str, NDArray[np.uint8]]:
        """The sample images of these records' cells, where they have any, by cell id; those that
        cannot be read are left out, with a warning."""
        return self._images(records, lambda cell: cell.samples, CellFolder.read_samples)

    def reals(self, records: Sequence[Record]) -> dict[str, NDArray[np.uint8]]:
        """The real images beside which these records' cells were scored, where any are kept and
        can be read, by cell id."""
        return self._images(records, lambda cell: cell.reals, CellFolder.read_reals)

    def _images(
        self,
        records: Sequence[Record],
        path: Callable[[CellFolder], Path],
        read: Callable[[CellFolder], NDArray[np.uint8]],
    ) -> dict[str, NDArray[np.uint8]]:
        found = {}
        for record in records:
            folder = self.cell(record.cell)
            if path(folder).exists():
                try:
                    found[record.cell.id] = read(folder)
                except StoreError as error:
                    logger.warning("%s", error)
        return found
