"""Files as values that can be sent."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dstbench.store import write_atomically


class File(NamedTuple):
    name: str
    content: NDArray[np.uint8]
    """An array, because Ray sends arrays without a copy."""


def read(path: Path) -> File:
    return File(path.name, np.fromfile(path, np.uint8))


def unpack(files: Iterable[File], folder: Path) -> None:
    """Write the files into a folder, each of them whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        write_atomically(folder / file.name, file.content.tofile)
