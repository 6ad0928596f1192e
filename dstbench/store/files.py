"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

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
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
