"""The image files of a folder or a zip file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from zipfile import BadZipFile, ZipFile, ZipInfo

from dstbench.cache import digest
from dstbench.errors import DataError
from dstbench.files import LEADS_BACK, Found, is_hidden, open_regular, read_regular, readable, walk
from dstbench_images.decoding import SUFFIXES

Files = Mapping[PurePosixPath, Callable[[], bytes]]
"""Functions that read the image files, by path below the root."""


class Listing(NamedTuple):
    """What is in a folder or a zip file."""

    files: Files
    """Image files, and what there is no other way to say that it cannot be read."""
    others: Counter[str]
    """How many others there are, by kind."""


def of_folder(root: Path, most: int) -> Listing:
    """The images below a folder, each read up to ``most`` bytes. Links are followed, unless they
    lead back."""
    files: dict[PurePosixPath, Callable[[], bytes]] = {}
    others = Counter[str]()
    for found in walk(root):
        path = PurePosixPath(found.name)
        if found.problem == LEADS_BACK:
            others["links that lead back"] += 1
        elif found.problem:
            files[path] = partial(_refuse, found.problem)
        elif is_image(path):
            files[path] = partial(read_regular, found.path, most)
        else:
            others[_kind(path)] += 1
    return Listing(files, others)


def of_zip(root: Path, most: int) -> Listing:
    """The images in a zip file, each unpacked up to ``most`` bytes.

    Raises :class:`~dstbench.errors.DataError` for what is no zip file.
    """
    try:
        open_regular(root).close()
        archive = ZipFile(root)
    except (BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"{root} is damaged, or no zip file: {error}") from error
    files: dict[PurePosixPath, Callable[[], bytes]] = {}
    others = Counter[str]()
    for entry in archive.infolist():
        path = _path(entry.filename)
        if entry.filename.endswith(("/", "\\")) or any(map(is_hidden, path.parts)):
            continue
        if is_image(path):
            others["named like another"] += path in files
            files[path] = partial(_unpack, archive, entry, most)
        else:
            others[_kind(path)] += 1
    return Listing(files, +others)


def state(root: Path) -> str:
    """A hash of paths, sizes and times of change: that of all pixels would take too long."""
    entries = {
        found.name: _stat(found)
        for found in walk(root)
        if found.problem or is_image(PurePosixPath(found.name))
    }
    return digest({"root": readable(root.absolute()), "entries": entries})


def is_image(path: PurePosixPath) -> bool:
    """Whether a file is called as image files are."""
    return path.suffix.lower() in SUFFIXES


def _stat(found: Found) -> list[int] | str:
    try:
        stat = found.path.stat()
    except OSError as error:
        return str(error)
    return [stat.st_size, stat.st_mtime_ns]


def _path(name: str) -> PurePosixPath:
    """The path of an archive's entry below its root, whatever separators it was packed with; one
    that would lead out of the root begins there."""
    parts: list[str] = []
    for part in re.sub(r"^[A-Za-z]:", "", name.replace("\\", "/")).split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return PurePosixPath(*parts)


def _unpack(archive: ZipFile, entry: ZipInfo, most: int) -> bytes:
    with archive.open(entry) as file:
        content = file.read(most + 1) if entry.file_size <= most else b""
    if max(entry.file_size, len(content)) > most:
        raise OSError(f"unpacked, more than the {most:,} bytes allowed")
    return content


def _refuse(problem: str) -> bytes:
    raise OSError(problem)


def _kind(path: PurePosixPath) -> str:
    return path.suffix.lower() or "without a suffix"
