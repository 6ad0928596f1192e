"""Folders that cannot be written to, what to say of them, and who may read what is in them."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dstbench.errors import StoreError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
"""What is wrong with a disk: not every such error names its file."""

_FORBIDDEN = {errno.EACCES, errno.EPERM}
"""What is wrong with a file."""

_RUST_ERROR = re.compile(r"\(os error (\d+)\)")
"""How safetensors tells what the operating system told it."""


def unwritable(error: BaseException, folder: Path) -> str | None:
    """Why nothing can be written to a folder, if that is what an error is about; else ``None``."""
    for each in _chain(error):
        number, path = None, None
        if isinstance(each, OSError):
            number, path = each.errno, each.filename
        elif told := _RUST_ERROR.search(str(each)[:1000]):
            number = int(told[1])
        here = number in _FULL if path is None else _is_in(str(path), folder)
        if number in _FULL | _FORBIDDEN and here:
            more = _free(folder) if number == errno.ENOSPC else ""
            if number in _FORBIDDEN and path is not None:
                more = f" ({Path(os.fsdecode(path)).name})"
            return f"{os.strerror(number)}{more}"
    return None


def write_error(error: OSError, folder: Path) -> StoreError:
    """What to say of an error of writing to a folder: of the file there that it is about, or of the
    folder where it is about none that is there."""
    named = error.filename2 or error.filename
    path = folder if named is None else Path(os.fsdecode(named))
    there = path if _is_in(str(path), folder) and os.path.lexists(path) else folder
    return StoreError(f"{there}: cannot be written to: {error.strerror or error}")


def free_bytes(folder: Path) -> int | None:
    """Bytes that can still be written to the disk of a folder, which need not be there yet;
    ``None`` where that cannot be told."""
    with suppress(OSError):
        there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
        return shutil.disk_usage(there).free
    return None


def mebibytes(count: float) -> str:
    """A size in words."""
    return f"{count / 2**20:,.0f} MiB" if count < 2**30 else f"{count / 2**30:,.1f} GiB"


def _free(folder: Path) -> str:
    free = free_bytes(folder)
    return "" if free is None else f" ({mebibytes(free)} free)"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_in(path: str, folder: Path) -> bool:
    return Path(path).absolute().is_relative_to(folder.absolute())


def share(path: Path) -> None:
    """Give a file, or all files in a folder, the permissions of any new one there: those of
    safetensors are their owner's alone, however many people share a results folder or a cache."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if stat.S_ISREG(mode := file.lstat().st_mode) and not mode & 0o077:
            new = file.with_name(f"{file.name}.new.partial")
            new.touch()
            usual = new.stat().st_mode
            new.unlink()
            with suppress(PermissionError):  # of file systems that have none
                file.chmod(stat.S_IMODE(usual))
