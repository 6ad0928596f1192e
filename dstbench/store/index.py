"""The records of a results folder in one file beside them, so that thousands of small files need
not be opened each time.

What the file says of a record holds for as long as the record's file is the one that it was read
from, as its number, size and times tell. A file that is damaged, old or not there costs time alone.
"""

from __future__ import annotations

import gc
import gzip
import json
import os
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from dstbench.files import open_regular
from dstbench.records import Record
from dstbench.store.files import write_atomically
from dstbench.store.folder import CellFolder

FILE = "records.index"

FORM = "dstbench records 2"
"""The first line of the file: what form the others have."""

WORTH_IT = 500
"""Number of records from which on there is a file."""

FRESH = 2.0
"""Age in seconds below which a record is not put into the file: its next version might have the
same times."""

MOST = 4 << 30
"""Bytes at most that are read of the file, unpacked."""


class Stamp(NamedTuple):
    """What tells a record's file from any other that was or will be in its place."""

    number: int
    size: int
    modified: int
    """Nanoseconds, like the following."""
    changed: int


class Known(NamedTuple):
    """A record as it was read, and the file that it was read from."""

    stamp: Stamp
    record: Record


class RecordIndex:
    """The records of the cells in a results folder, each parsed once.

    :meth:`save` keeps them for other processes.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self.cells = folder / "cells"
        self._cells = str(self.cells)
        self._known: dict[str, Known] = {}
        self._kept: dict[str, Known] | None = None
        """Records in the file, by the name of the cell's folder."""
        self._new = 0
        """Number of records that were read from files of their own."""

    def record(self, name: str) -> Record | None:
        """What :meth:`CellFolder.record` of the folder of that name returns, and raises."""
        stamp = self._stamp(name)
        if stamp is None:
            return CellFolder(self.cells / name).record()
        known = self._known.get(name)
        if known is None or known.stamp != stamp:
            known = self._from_file(name)
            if known is None or known.stamp != stamp:
                record = CellFolder(self.cells / name).record()
                self._new += 1
                if record is None or stamp != self._stamp(name):
                    return record  # it was replaced meanwhile
                known = Known(stamp, record)
            self._known[name] = known
        return known.record

    def save(self) -> None:
        """Keep what was read, where that is much, and the folder may be written to."""
        if self._new <= len(self._known) // 10 or len(self._known) < WORTH_IT:
            return
        newest = time.time_ns() - int(FRESH * 1e9)
        lines = [FORM] + [
            "\t".join(
                (
                    name,
                    known.record.cell.id,
                    json.dumps(known.stamp),
                    known.record.model_dump_json(),
                )
            )
            for name, known in self._known.items()
            if f"{name}{known.record.cell.id}".isprintable()
            and max(known.stamp.modified, known.stamp.changed) < newest
        ]
        packed = gzip.compress("\n".join(lines).encode(), compresslevel=1, mtime=0)
        with suppress(OSError):
            write_atomically(self.path, lambda path: path.write_bytes(packed))
            self._new = 0

    def _stamp(self, name: str) -> Stamp | None:
        try:
            found = os.stat(f"{self._cells}/{name}/record.json")
        except OSError:
            return None
        return Stamp(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    def _from_file(self, name: str) -> Known | None:
        if self._kept is None:
            self._kept = _read(self.path)
        return self._kept.pop(name, None)


def _read(path: Path) -> dict[str, Known]:
    """What the file says, by the names of cells; nothing where it is not whole."""
    try:
        with open_regular(path) as file, gzip.open(file) as unpacked:
            first, *lines = _text(unpacked).split("\n")
        if first != FORM:
            return {}
        with without_collector():
            return dict(map(_entry, lines))
    except (OSError, EOFError, ValueError, TypeError, zlib.error):
        return {}


def _entry(line: str) -> tuple[str, Known]:
    name, id, stamp, text = line.split("\t", 3)
    record = Record.model_validate_json(text)
    record.cell.remember(id)
    return name, Known(Stamp(*json.loads(stamp)), record)


@contextmanager
def without_collector() -> Iterator[None]:
    """Import modules, or make thousands of records, none of which is dropped, without looking for
    garbage among them again and again: that takes up to twice the time of making them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _text(unpacked: gzip.GzipFile) -> str:
    """All that is in the file, of which the checksum at its end is compared."""
    content = unpacked.read(MOST)
    if unpacked.read(1):
        raise ValueError("larger than any index")
    return content.decode()
