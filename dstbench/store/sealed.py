"""Files of torch that end in a checksum of all that is before it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from dstbench.files import open_regular

if TYPE_CHECKING:
    import torch

MARK = b"\nsha256:"
"""What stands between the content and its checksum: torch looks for the end of its own part."""

_LENGTH = len(MARK) + 64
_CHUNK = 2**22


class _Summed:
    """A file that is written to, and the checksum of what went into it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.sum = hashlib.sha256()

    def write(self, content: Any) -> int:
        self.sum.update(content)
        return self.file.write(content)

    def flush(self) -> None:
        self.file.flush()


def save_sealed(state: dict[str, Any], path: Path) -> None:
    """Write what ``torch.save`` makes of a state, and its checksum.

    Raises:
        OSError, RuntimeError: if the disk is full, and so on.
    """
    import torch

    with path.open("wb") as file:
        summed = _Summed(file)
        torch.save(state, summed)  # type: ignore[arg-type]
        file.write(MARK + summed.sum.hexdigest().encode())


def load_sealed(path: Path, device: torch.device) -> dict[str, Any]:
    """The state that :func:`save_sealed` was given; one without a checksum is of an earlier version
    of dstbench.

    Raises:
        Exception: of any kind, for a file that is damaged.
    """
    import torch

    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - _LENGTH))
        end = file.read()
        if end.startswith(MARK) and _sum(file, size - _LENGTH) != end[len(MARK) :].decode():
            raise ValueError("its content is not what was written")
        file.seek(0)
        state: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
        return state


def _sum(file: BinaryIO, size: int) -> str:
    """The checksum of the first bytes of a file."""
    file.seek(0)
    found = hashlib.sha256()
    while size and (chunk := file.read(min(size, _CHUNK))):
        found.update(chunk)
        size -= len(chunk)
    return found.hexdigest()
