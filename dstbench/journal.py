"""A file that is made part by part, and is gone on with where a stopped process has left it."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

__all__ = ["Journal"]


class _Part(NamedTuple):
    """A line of the journal: what it says of the next bytes of the file."""

    size: int
    sum: str
    note: Any


class Journal:
    """A file in parts, and beside it, until all is there, a line for each: size, checksum, note.

    Opened again, it has the parts that are whole, up to the first one that is not. It is for the
    folder that a resumable maker of :meth:`~dstbench.cache.Cache.folder` is given, and there for
    one process at a time.

    Args:
        take: called with the content and the note of each part: those that are there when it is
            opened, then those that are added. A note is what JSON can hold.
    """

    def __init__(self, path: Path, take: Callable[[bytes, Any], object]) -> None:
        self._path = path
        self._take = take

    def __enter__(self) -> Journal:
        self._file: BinaryIO = self._path.open("a+b")
        self._lines: BinaryIO = self._path.with_name(f"{self._path.name}.parts.partial").open("a+b")
        self._go_on()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._lines.close()

    def add(self, content: bytes, note: Any = None) -> None:
        """Write the next part.

        Raises :class:`OSError` where that cannot be written.
        """
        part = _Part(len(content), sha256(content).hexdigest(), note)
        self._file.write(content)
        self._file.flush()
        self._lines.write(json.dumps(part).encode() + b"\n")
        self._lines.flush()
        self._take(content, note)

    def _go_on(self) -> None:
        self._file.seek(0)
        self._lines.seek(0)
        size = lines = 0
        for line in self._lines:
            try:
                part = _Part(*json.loads(line))
                content = self._file.read(part.size)
                whole = line.endswith(b"\n") and sha256(content).hexdigest() == part.sum
            except (ValueError, TypeError):
                break
            if not whole:
                break
            self._take(content, part.note)
            size, lines = size + len(content), lines + len(line)
        self._file.truncate(size)
        self._lines.truncate(lines)
