"""What a report was made from, so that it is not drawn again while all of that stays as it is."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from pydantic import BaseModel, ValidationError

from dstbench.files import read_regular
from dstbench.store.files import write_atomically

FILE = "written.json"

_SUFFIXES = (".md", ".csv", ".png", ".html")
"""Of the files of a report."""

_MOST = 2**26


class _Written(BaseModel):
    state: str
    """Hash of what the report was made from."""
    files: dict[str, tuple[int, int]]
    """Size and time (ns) of each of its files, by name."""
    text: str
    """Its tables, as they are printed."""


def state_of(parts: Iterable[str]) -> str:
    """A hash (hex) of all that determines a report: of these texts, and of the code that makes it,
    as its files' times tell."""
    found = sha256()
    for path in sorted(Path(__file__).parent.rglob("*.*")):
        if path.suffix != ".pyc":
            found.update(f"{path.name} {path.stat().st_mtime_ns}\n".encode())
    for part in parts:
        found.update(part.encode() + b"\n")
    return found.hexdigest()


def written_text(folder: Path, state: str) -> str | None:
    """The printed tables of the report in a results folder, if it was made from this and is there
    as it was written."""
    with suppress(OSError, ValidationError):
        written = _Written.model_validate_json(read_regular(folder / FILE, _MOST))
        if written.state == state and written.files == _files(folder):
            return written.text
    return None


def note_written(folder: Path, state: str, text: str) -> None:
    """Remember what the report in a results folder was made from, and its tables as text."""
    written = _Written(state=state, files=_files(folder), text=text).model_dump_json()
    write_atomically(folder / FILE, lambda path: path.write_text(written, encoding="utf-8"))


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in folder.iterdir():
        if path.suffix in _SUFFIXES and path.is_file():
            stats = path.stat()
            found[path.name] = stats.st_size, stats.st_mtime_ns
    return found
