"""Quick, Draw!: what players of a game drew in twenty seconds."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import quote

import numpy as np
from pydantic import Field, field_validator

from dstbench.contracts import READY, Availability, Data, Workspace
from dstbench.errors import DataError
from dstbench.files import open_regular
from dstbench_sketches.preparing import (
    Drawing,
    SketchDataset,
    SplitSettings,
    Typical,
    content_key,
    prepare,
    split,
    within,
)
from dstbench_sketches.sketch import Stroke

URL = "https://storage.googleapis.com/quickdraw_dataset/full"

LINES = "quickdraw-lines"
"""Name of what is kept of files on the web, in the cache."""

TIMEOUT = 30
"""Seconds without an answer after which a download is given up."""

LONGEST = 64_000_000
"""Characters of a line at most; those of drawings have some thousands."""

SEPARATORS = "\x85\u2028\u2029\ufeff"
"""Characters that some programs leave between lines, or before the first; no drawing has them."""

Category = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z -]*$")]


class QuickDraw(SketchDataset["QuickDraw.Settings"]):
    """The first drawings of each category, a tenth of all (at random, seed 0) for validation.

    By Google, CC BY 4.0, https://github.com/googlecreativelab/quickdraw-dataset. Files are read
    only as far as they are needed: those on the web too, whose first lines are then kept.
    """

    name = "quickdraw"
    typical = Typical(strokes=8.3, length=6.6, source="as three records of it have on average")
    trial_settings: ClassVar[Mapping[str, Any]] = {"sketches": 100}

    class Settings(SplitSettings):
        categories: tuple[Category, ...] = Field(
            ("cat", "crab", "mosquito", "bus", "fish", "yoga", "flower"),
            min_length=1,
            description="things that were to be drawn, among the game's 345 categories",
        )
        format: Literal["simplified", "raw"] = Field(
            "simplified", description="raw: every point that the pen passed"
        )
        sketches: int = Field(10_000, ge=1, description="drawings of each category")
        recognized_only: bool = Field(
            True, description="leave out drawings that the game did not recognise"
        )
        path: Path | None = Field(
            None, description="folder of CATEGORY.ndjson files; none: downloaded"
        )

        @field_validator("categories")
        @classmethod
        def _each_once(cls, categories: tuple[str, ...]) -> tuple[str, ...]:
            for category in categories:
                if categories.count(category) > 1:
                    raise ValueError(f"'{category}' is given twice; once would be right")
            return categories

    def availability(self, workspace: Workspace) -> Availability:
        settings = self.settings
        if settings.path is None:
            keys = {category: _key(category, settings) for category in settings.categories}
            absent = [name for name, key in keys.items() if not workspace.cache.has(LINES, key)]
            if not absent:
                return READY
            return Availability(
                "download",
                f"the first {settings.sketches:,} drawings of each of {', '.join(absent)}, "
                f"streamed from {URL}/{settings.format}",
            )
        for category in settings.categories:
            if not _file(category, settings.path).is_file():
                return Availability("missing", _unreadable(category, settings, "no such file"))
        return READY

    def load(self, workspace: Workspace) -> Data:
        each = (
            drawing
            for category in self.settings.categories
            for drawing in _read_category(category, self.settings, workspace)
        )
        drawings = list(within(each, self.settings.most_bytes))
        return prepare(
            self.name,
            content_key(drawings),
            lambda: split(drawings, ", ".join(self.settings.categories), self.settings),
            read_record,
            self.settings,
            workspace,
        )


def read_record(line: bytes) -> list[Stroke]:
    """The strokes of one record, raw or simplified, in its own units.

    Raises :class:`~dstbench.errors.DataError` for a line that is no such record.
    """
    try:
        return [np.column_stack(stroke[:2]) for stroke in _record(line)["drawing"]]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(f"no drawing in it: {error!r}") from error


def _record(line: bytes) -> dict[str, Any]:
    try:
        text = line.decode("utf-8", "surrogatepass")
        for separator in SEPARATORS:
            text = text.replace(separator, " ")
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON: {error}") from error
    if not isinstance(record, dict):
        raise DataError("not a JSON object")
    return record


def _read_category(
    category: str, settings: QuickDraw.Settings, workspace: Workspace
) -> list[Drawing]:
    if settings.path is None:
        file = _download(category, settings, workspace)
    else:
        file = _file(category, settings.path)
    try:
        with open_regular(file) as opened:
            first = _first(category, _lines(opened), settings)
            drawings = list(within(first, settings.most_bytes))
    except OSError as error:
        raise DataError(_unreadable(category, settings, error.strerror or str(error))) from error
    if len(drawings) < settings.sketches:
        workspace.report(
            f"quickdraw: '{category}' has {len(drawings):,} drawings, of {settings.sketches:,}"
        )
    return drawings


def _file(category: str, folder: Path) -> Path:
    return folder / f"{category}.ndjson"


def _unreadable(category: str, settings: QuickDraw.Settings, why: str) -> str:
    return (
        f"the category '{category}' of the dataset 'quickdraw' cannot be read ({why}); the "
        f"setting 'path' should be a folder with the file from {_url(category, settings)}"
    )


def _lines(file: io.BufferedReader) -> Iterator[bytes]:
    """The lines of a file in UTF-8, in whichever of JSON's encodings it is.

    Raises :class:`OSError` for a line that is too long to be a drawing.
    """
    encoding = json.detect_encoding(file.peek(4)[:4])
    with io.TextIOWrapper(file, encoding, errors="replace", newline="\n") as lines:
        while line := lines.readline(LONGEST + 1):
            if len(line) > LONGEST:
                raise OSError(f"a line of more than {LONGEST:,} characters")
            yield line.encode()


def _is_true(value: Any) -> bool:
    """Whether a value of JSON, or the word that some program made of it, stands for true."""
    return (
        value.strip().lower() in {"true", "t", "yes", "y", "1"}
        if isinstance(value, str)
        else bool(value)
    )


def _first(
    category: str, lines: Iterable[bytes], settings: QuickDraw.Settings
) -> Iterator[Drawing]:
    """The first drawings of a file; what is no record is among them, to be counted as left out."""
    wanted = settings.sketches
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            recognized = _is_true(_record(line).get("recognized", True))
        except DataError:
            yield Drawing(f"{category}.ndjson, line {number}", line)
            continue
        if recognized or not settings.recognized_only:
            yield Drawing(f"{category}.ndjson, line {number}", line)
            wanted -= 1
        if not wanted:
            return


def _url(category: str, settings: QuickDraw.Settings) -> str:
    return f"{URL}/{settings.format}/{quote(category)}.ndjson"


def _download(category: str, settings: QuickDraw.Settings, workspace: Workspace) -> Path:
    """The first drawings of a category on the web, in the cache."""
    url = _url(category, settings)
    name = f"{category}.ndjson"

    def make(folder: Path) -> None:
        workspace.report(f"downloading the first {settings.sketches:,} drawings of {url}")
        with _stream(url) as lines:
            first = within(_first(category, lines, settings), settings.most_bytes)
            drawings = [drawing.content.strip() for drawing in first]
        try:
            _record(drawings[0] if drawings else b"")
        except DataError as error:  # some server's page, which is not to be kept
            raise DataError(f"{url} is no file of drawings: {error}") from error
        (folder / name).write_bytes(b"\n".join(drawings))

    return workspace.cache.folder(LINES, _key(category, settings), make) / name


def _key(category: str, settings: QuickDraw.Settings) -> dict[str, Any]:
    return {
        "url": _url(category, settings),
        "sketches": settings.sketches,
        "recognized_only": settings.recognized_only,
    }


@contextmanager
def _stream(url: str) -> Iterator[Iterator[bytes]]:
    """The lines of a file on the web, read no further than they are asked for."""
    import requests

    try:
        with requests.get(url, stream=True, timeout=TIMEOUT) as response:
            response.raise_for_status()
            yield response.iter_lines(chunk_size=65536, delimiter=b"\n")
    except requests.RequestException as error:
        raise DataError(
            f"{url} could not be read ({error}); categories are those of the game, and files can "
            "also be in a folder, named in the setting 'path' of the dataset 'quickdraw'"
        ) from error
