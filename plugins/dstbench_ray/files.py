"""A cell's folder as values that can be sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dstbench.store import write_atomically

OF_ITS_PROCESS = ("lock", "running.json")
"""What belongs to the process that holds the folder, and stays with it."""
RECORD = "record.json"


class File(NamedTuple):
    name: str
    content: NDArray[np.uint8]
    """An array, because Ray sends arrays without a copy."""


def read(path: Path) -> File:
    return File(path.name, np.fromfile(path, np.uint8))


def pack(folder: Path) -> Iterator[File]:
    """The files of a cell's folder, its record last."""
    paths = [path for path in folder.iterdir() if path.name not in OF_ITS_PROCESS]
    for path in sorted(paths, key=lambda path: path.name == RECORD):
        yield read(path)


def unpack(files: Iterable[File], folder: Path) -> None:
    """Write the files into a folder, each of them whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        write_atomically(folder / file.name, file.content.tofile)
