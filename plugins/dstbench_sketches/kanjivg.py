"""KanjiVG: Japanese characters as their strokes are written."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError
from zipfile import BadZipFile, ZipFile

import numpy as np
from pydantic import Field

from dstbench.cache import file_digest
from dstbench.contracts import READY, Availability, Data, Dataset, Items, Workspace
from dstbench.errors import DataError
from dstbench.plugins import require
from dstbench_sketches.preparing import Drawing, Splits, SplitSettings, Typical, prepare, split
from dstbench_sketches.sketch import Stroke

RELEASE_URL = (
    "https://github.com/KanjiVG/kanjivg/releases/download/r20250816/kanjivg-20250816-main.zip"
)
RELEASE_SHA256 = "69a2944ec1183086fdee5ba9c1f48bc306b867480a95b2f337f3203bf50689a3"

RELEASE = "kanjivg-release", {"sha256": RELEASE_SHA256}
"""Name and key of the release in the cache."""

CURVE_POINTS = 16
"""Points that stand for each Bézier curve of a path, before strokes are resampled."""

LARGEST = 256 << 20
"""Bytes that all characters may have, unpacked; those of a release have 29 MB."""

_CHARACTER = re.compile(r"(?:.*/)?[0-9a-f]{5}\.svg")  # a variant's name has a suffix

TYPICAL = Typical(strokes=11.9, length=4.65, source="KanjiVG's mean")


class KanjiVG(Dataset["KanjiVG.Settings"]):
    """The non-variant characters of KanjiVG, a tenth of them (at random, seed 0) for validation.

    A character's label is its number of strokes.

    By Ulrich Apel, CC BY-SA 3.0, https://kanjivg.tagaini.net. Read from the setting ``path``, else
    from the last ``kanjivg/*.zip`` in the folder ``$DSTBENCH_DATA``, else from the release of
    August 2025 (6,702 characters, 13 MB), which is downloaded once and checked. Needs
    ``pip install 'dstbench[kanjivg]'``.
    """

    name = "kanjivg"
    kind = "sketches"

    class Settings(SplitSettings):
        path: Path | None = Field(
            None, description="a release's kanjivg-…-main.zip; none: found or downloaded"
        )

    def outline(self) -> Items:
        return TYPICAL.outline(self.settings)

    def availability(self, workspace: Workspace) -> Availability:
        try:
            found = self._found() is not None or workspace.cache.has(*RELEASE)
        except DataError as error:
            return Availability("missing", str(error))
        return READY if found else Availability("download", f"13 MB from {RELEASE_URL}")

    def load(self, workspace: Workspace) -> Data:
        archive = self._found() or _download(workspace)
        key = {"sha256": file_digest(archive)}
        settings = self.settings
        data = prepare(
            self.name, key, lambda: _drawings(archive, settings), read_svg, settings, workspace
        )
        parts = {"train": data.train, "validation": data.validation}
        # The pen is lifted once after each stroke.
        strokes = {part: [int(item[:, 2].sum()) for item in items] for part, items in parts.items()}
        return replace(data, labels=strokes)

    def _found(self) -> Path | None:
        """The archive that the setting names, or the one in the data folder."""
        path = self.settings.path
        if path is not None and not path.is_file():
            raise DataError(
                f"the setting 'path' of the dataset 'kanjivg' names {path}, which is no file; "
                f"it should be a release's zip, such as {RELEASE_URL}"
            )
        return path or _in_data_folder()


def read_svg(svg: bytes) -> list[Stroke]:
    """The strokes of a character: every path of an SVG, in the file's units.

    Raises:
        DataError: for what is not such a file; entities that a file defines are not expanded, but
            refused.
        PluginError: if the package svgpathtools is not installed.
    """
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        root = fromstring(svg)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise DataError(f"not the XML of a character: {error}") from error
    paths = root.iterfind(".//{http://www.w3.org/2000/svg}path")
    return [stroke for path in paths for stroke in _strokes(path.get("d", ""))]


def _strokes(d: str) -> Iterator[Stroke]:
    svgpathtools = require("svgpathtools", "dataset 'kanjivg'", "dstbench[kanjivg]")
    try:
        path = svgpathtools.parse_path(d)
        strokes = [_points(part) for part in path.continuous_subpaths()] if len(path) else []
    except Exception as error:  # the parser's, of any kind, where the text is nonsense
        raise DataError(f"a path that cannot be read, d={d[:40]!r}: {error}") from error
    if not strokes:
        raise DataError(f"a path without a line, d={d[:40]!r}")
    yield from strokes


def _points(path: Any) -> Stroke:
    at = np.linspace(0, 1, CURVE_POINTS)
    way = np.array([[segment.point(t) for t in at] for segment in path]).ravel()
    return np.column_stack([way.real, way.imag])


def _drawings(archive: Path, settings: KanjiVG.Settings) -> Splits:
    try:
        with ZipFile(archive) as files:
            sizes = {
                file.filename: file.file_size
                for file in files.infolist()
                if _CHARACTER.fullmatch(file.filename)
            }
            if sum(sizes.values()) > LARGEST:
                raise DataError(
                    f"{archive} is no release of KanjiVG: its characters would be "
                    f"{sum(sizes.values()):,} bytes, of {LARGEST:,} allowed"
                )
            drawings = [Drawing(name, files.read(name)) for name in sorted(sizes)]
    except (BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise DataError(
            f"{archive} is damaged, or no zip file ({error}); "
            f"it should be a release of KanjiVG, such as {RELEASE_URL}"
        ) from error
    if not drawings:
        raise DataError(f"{archive} holds no characters: files such as kanji/04e9c.svg")
    return split(drawings, archive, settings)


def _in_data_folder() -> Path | None:
    folder = os.environ.get("DSTBENCH_DATA")
    archives = sorted(Path(folder, "kanjivg").glob("*.zip")) if folder else []
    return archives[-1] if archives else None


def _download(workspace: Workspace) -> Path:
    """The release, in the cache."""
    from torch.hub import download_url_to_file

    def make(folder: Path) -> None:
        workspace.report(f"downloading {RELEASE_URL} (13 MB)")
        try:
            download_url_to_file(
                RELEASE_URL, str(folder / "kanjivg.zip"), RELEASE_SHA256, progress=False
            )
        except (OSError, RuntimeError, HTTPException) as error:
            raise DataError(
                f"KanjiVG could not be downloaded ({error}); get {RELEASE_URL}, and name the file "
                "in the setting 'path' of the dataset 'kanjivg' or put it in $DSTBENCH_DATA/kanjivg"
            ) from error

    return workspace.cache.folder(*RELEASE, make) / "kanjivg.zip"
