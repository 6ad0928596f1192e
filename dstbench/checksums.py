"""Checksums of what was written, by which it is known to be the same when it is read back."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

MANIFEST = "checksums.json"
"""The file of a folder that holds the checksum of each of its other files."""

State = tuple[tuple[str, int, int, int], ...]

_found_whole: dict[Path, State] = {}
"""Names, sizes and times of the files of each folder that this process has read and found whole."""


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a regular file's bytes.

    Raises:
        OSError: if it is not there, cannot be read, or is no regular file.
    """
    with open(path, "rb", opener=open_regular) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_regular(path: Path, at_most: int = 2**26) -> bytes:
    """The bytes of a regular file.

    Raises:
        OSError: if it is not there, cannot be read, is no regular file, or has more bytes.
    """
    with open(path, "rb", opener=open_regular) as file:
        content = file.read(at_most + 1)
    if len(content) > at_most:
        raise OSError(errno.EFBIG, f"larger than {at_most:,} bytes", str(path))
    return content


def open_regular(path: str, flags: int) -> int:
    """An opener for files that are nothing else: a FIFO or a device would be waited for.

    Raises:
        OSError: for anything that is no regular file.
    """
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return descriptor


def write_manifest(folder: Path) -> None:
    """Write the checksums of all files of a folder beside them."""
    sums = {name: file_digest(folder / name) for name in _files(folder)}
    unfinished = folder / f"{MANIFEST}.{os.getpid()}.partial"
    try:
        unfinished.write_text(json.dumps(sums, indent=1), encoding="utf-8")
        unfinished.replace(folder / MANIFEST)
    finally:
        unfinished.unlink(missing_ok=True)
    _found_whole[folder.absolute()] = _state(folder, sums)


def damage(folder: Path) -> str | None:
    """What is not as its manifest says of a folder, in words; ``None``: all is.

    The content of files is read once per process, and again where their sizes or times change.
    """
    try:
        sums = json.loads(read_regular(folder / MANIFEST))
        state = _state(folder, sums)
        if _found_whole.get(folder.absolute()) == state:
            return None
        for name, expected in sums.items():
            if file_digest(folder / name) != expected:
                return f"the content of {name} has changed"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"{Path(error.filename or folder).name}: {error.strerror}"
    except (ValueError, AttributeError, TypeError):
        return f"{MANIFEST} cannot be read"
    _found_whole[folder.absolute()] = state
    return None


def _files(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST and path.suffix != ".partial":
            yield path.relative_to(folder).as_posix()


def _state(folder: Path, names: dict[str, str]) -> State:
    found = []
    for name in (MANIFEST, *names):
        stats = (folder / name).stat()
        found.append((name, stats.st_ino, stats.st_size, stats.st_mtime_ns))
    return tuple(found)
