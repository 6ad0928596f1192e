"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import Protocol

from dstbench.disk import share, unwritable
from dstbench.errors import StoreError

MOST = 256 << 20
"""Bytes at most of a file of JSON or words; what is larger is something else."""


class InFolder(Protocol):
    """Something with a folder of its own."""

    path: Path


class FileName:
    """The path of a file in its owner's folder: made when it is asked for, since of thousands of
    folders few are looked into."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, owner: InFolder, _: object) -> Path:
        return owner.path / self.name


def now() -> str:
    """The time, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a file that appears at ``path`` whole or not at all."""
    unfinished = path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}.partial")
    try:
        write(unfinished)
        share(unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def require_new(path: Path) -> None:
    """Raise :class:`StoreError` where something is already."""
    if path.is_symlink() or path.exists():
        raise StoreError(f"{path}: is there already, and stays as it is; name another folder")


def write_folder(to: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a new folder that appears at ``to`` whole or not at all.

    Raises :class:`StoreError` where something is there already, or nothing can be written.
    """
    require_new(to)
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(mkdtemp(prefix=f".{to.name}.", dir=to.parent))
        try:
            write(unfinished)
            share(unfinished)
            unfinished.chmod(0o755)
            os.rename(unfinished, to)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except Exception as error:
        reason = unwritable(error, to.parent)  # it may be of a library's own kind
        if reason is None and isinstance(error, OSError):
            reason = error.strerror or str(error)
        if reason is None:
            raise
        raise StoreError(f"{to}: cannot be written: {reason}") from None
