"""Files of torch that end in a checksum of all that is before it."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, BinaryIO

from dstbench.files import open_regular

if TYPE_CHECKING:
    import torch

MARK = b"\nsha256:"
"""What stands between the content and its checksum: torch looks for the end of its own part."""

_LENGTH = len(MARK) + 64
_CHUNK = 2**22


class DamagedError(Exception):
    """A file is not what was written, as its checksum or its form tells."""


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
        DamagedError: for a file that is damaged.
        Exception: of any kind, where a file that is whole cannot be read now, for want of memory
            perhaps.
    """
    import torch

    try:
        file = open_regular(path)
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.EINVAL):
            raise DamagedError(str(error)) from error
        raise
    with file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - _LENGTH))
        end = file.read()
        sealed = end.startswith(MARK)
        if sealed and _sum(file, size - _LENGTH) != end[len(MARK) :].decode(errors="replace"):
            raise DamagedError("its content is not what was written")
        file.seek(0)
        try:
            state: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
        except Exception as error:
            whole = sealed and not isinstance(error, UnpicklingError)
            if whole or _is_want_of_memory(error):
                raise
            raise DamagedError(str(error)) from error
        if not isinstance(state, dict):
            raise DamagedError(f"a {type(state).__name__}")
        return state


def _is_want_of_memory(error: Exception) -> bool:
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "memory" in str(error)


def _sum(file: BinaryIO, size: int) -> str:
    """The checksum of the first bytes of a file."""
    file.seek(0)
    found = hashlib.sha256()
    while size and (chunk := file.read(min(size, _CHUNK))):
        found.update(chunk)
        size -= len(chunk)
    return found.hexdigest()
