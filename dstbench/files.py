"""Files that somebody else made: only regular ones are opened, and none is read without a limit."""

from __future__ import annotations

import errno
import hashlib
import io
import math
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from dstbench.errors import DataError, StoreError

if TYPE_CHECKING:
    import torch

__all__ = [
    "LEADS_BACK",
    "Found",
    "is_hidden",
    "mapped",
    "open_regular",
    "read_regular",
    "readable",
    "walk",
]

LEADS_BACK = "a link back to a folder that it lies in"
"""The problem of a link that is not followed, because that would never end."""

_CHUNK = 2**22

MOST_FOLDERS = 1_000_000
"""Folders that are looked into; links between folders can make endlessly many of a few."""


def open_regular(path: Path) -> io.BufferedReader:
    """A regular file, or what a link to one leads to, opened for reading.

    Raises :class:`OSError` for everything else, at once: opening a pipe would wait for its other
    end, and reading a device may never end.
    """
    _check_regular(os.stat(path).st_mode, path)
    file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115
    try:
        _check_regular(os.fstat(file.fileno()).st_mode, path)
    except OSError:
        file.close()
        raise
    return file


def read_regular(path: Path, most: int) -> bytes:
    """The content of a regular file. Raises :class:`OSError` for other kinds of files, and for one
    of more than ``most`` bytes."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(most + 1) if size <= most else b""
    if max(size, len(content)) > most:
        raise OSError(errno.EFBIG, f"more than the {most:,} bytes allowed", str(path))
    return content


def copy_regular(source: Path, to: Path, most: int) -> str:
    """Copy a regular file's content into a new file; its SHA-256 (hex).

    Raises :class:`OSError` for links and other kinds of files, and for one of more than ``most``
    bytes.
    """
    found = hashlib.sha256()
    left = most
    with open(source, "rb", opener=_open_no_link) as file, to.open("xb") as copy:
        _check_regular(os.fstat(file.fileno()).st_mode, source)
        while chunk := file.read(min(left + 1, _CHUNK)):
            left -= len(chunk)
            if left < 0:
                raise OSError(errno.EFBIG, f"more than the {most:,} bytes allowed", str(source))
            found.update(chunk)
            copy.write(chunk)
    return found.hexdigest()


def _open_no_link(path: str, flags: int) -> int:
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, "a link, which is not followed", path)
    _check_regular(mode, Path(path))
    return _open_without_waiting(path, flags | getattr(os, "O_NOFOLLOW", 0))


def _open_without_waiting(path: str, flags: int) -> int:
    """As :func:`os.open`; should a file have become a pipe since it was looked at, that is seen."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check_regular(mode: int, path: Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(mode), "a device")
        raise OSError(errno.EINVAL, f"{kind}, no regular file", str(path))


class Found(NamedTuple):
    """Something in a folder that is not a folder itself."""

    path: Path
    name: str
    """Its path below the folder, with ``/``, as :func:`readable` has it."""
    problem: str = ""
    """Why it cannot be looked into, where it is known not to be a file."""


def walk(root: Path) -> Iterator[Found]:
    """Everything below a folder but folders and what is hidden, in no particular order.

    Links are followed. What cannot be looked into is found, too, with its problem: a link that
    leads nowhere, or back to a folder that it lies in (:data:`LEADS_BACK`), a folder that this user
    may not read.

    Raises :class:`~dstbench.errors.DataError` for more than a million folders.
    """
    open_folders = [(root, PurePosixPath(), frozenset[tuple[int, int]]())]
    looked_into = 0
    while open_folders:
        folder, below, around = open_folders.pop()
        looked_into += 1
        if looked_into > MOST_FOLDERS:
            raise DataError(
                f"{root} has more than {MOST_FOLDERS:,} folders: do links lead round and round?"
            )
        try:
            here = os.stat(folder)
            if (here.st_dev, here.st_ino) in around:
                yield Found(folder, str(below), LEADS_BACK)
                continue
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            yield Found(folder, str(below), error.strerror or str(error))
            continue
        around |= {(here.st_dev, here.st_ino)}
        for entry in entries:
            name = readable(entry.name)
            if is_hidden(name):
                continue
            path, at = folder / entry.name, below / name
            try:
                if stat.S_ISDIR(os.stat(path).st_mode):
                    open_folders.append((path, at, around))
                else:
                    yield Found(path, str(at))
            except OSError as error:
                yield Found(path, str(at), error.strerror or str(error))


def readable(path: str | Path) -> str:
    """A path that any text may hold: bytes that are no UTF-8 are written ``\\xe9``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or what macOS adds to archives."""
    return name.startswith(".") or name == "__MACOSX"


def mapped(path: Path, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """The numbers of a file, as they lie on disk.

    Raises :class:`~dstbench.errors.StoreError` where the file is not as large as they are: reading
    beyond the end of a mapped file would end the process.
    """
    import torch

    size, expected = os.stat(path).st_size, math.prod(shape) * dtype.itemsize
    if size != expected:
        raise StoreError(
            f"{path} has {size:,} bytes, not {expected:,}, so it is damaged; "
            f"remove the folder {path.parent}, which is then made again"
        )
    if not expected:
        return torch.empty(tuple(shape), dtype=dtype)
    return torch.from_file(str(path), size=math.prod(shape), dtype=dtype).view(tuple(shape))
