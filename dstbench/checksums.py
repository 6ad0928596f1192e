"""Checksums of what was written, by which it is known to be the same when it is read back."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from dstbench.files import open_regular, read_regular

MANIFEST = "checksums.json"
"""The file of a folder that holds the checksum of each of its other files."""

MOST = 2**26
"""Bytes of such a file, at most."""

State = tuple[tuple[str, int, int, int], ...]

_found_whole: dict[Path, State] = {}
"""Names, sizes and times of the files of each folder that this process has read and found whole."""


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a regular file's bytes.

    Raises:
        OSError: if it is not there, cannot be read, or is no regular file.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        sums = json.loads(read_regular(folder / MANIFEST, MOST))
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
