"""What trained cells score under other evaluations than their own: records beside their own."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from dstbench.cell import Cell
from dstbench.errors import StoreError
from dstbench.records import Record
from dstbench.store.files import write_atomically
from dstbench.store.folder import CellFolder
from dstbench.store.record_file import read_record, record_text

_NAME = re.compile(r"scores-.*\.json", re.DOTALL)


def write_rescored(folder: CellFolder, record: Record) -> None:
    """Keep what a trained cell scores under another evaluation: a record of the cell that would
    have been evaluated so.

    Raises :class:`StoreError` where it could not be read back, or cannot be written.
    """
    text, to = record_text(record, {}), _path(folder, record.cell)
    try:
        write_atomically(to, lambda path: path.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"{to}: cannot be written: {error.strerror}") from None


def read_rescored(folder: CellFolder, cell: Cell) -> Record | None:
    """Such a record of ``cell``, if there is one that can be read."""
    with suppress(OSError, StoreError):
        return read_record(_path(folder, cell))[0]
    return None


def rescored(folder: CellFolder) -> list[Record]:
    """All such records, less those that cannot be read."""
    found = []
    # Thousands of folders are looked through each time: a glob takes several times as long.
    with suppress(OSError):
        for name in sorted(filter(_NAME.fullmatch, os.listdir(folder.path))):
            with suppress(OSError, StoreError):
                found.append(read_record(folder.path / name)[0])
    return found


def _path(folder: CellFolder, cell: Cell) -> Path:
    return folder.path / f"scores-{cell.id.rpartition('-')[2]}.json"
