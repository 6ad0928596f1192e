"""KanjiVG: Japanese characters as their strokes are written."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar
from zipfile import BadZipFile, ZipFile

from pydantic import Field

from dstbench.cache import file_digest
from dstbench.contracts import READY, Availability, Data, Workspace
from dstbench.download import download
from dstbench.errors import DataError
from dstbench_sketches.preparing import (
    Drawing,
    SketchDataset,
    Splits,
    SplitSettings,
    Typical,
    prepare,
    split,
)
from dstbench_sketches.svg import read_svg

RELEASE_URL = (
    "https://github.com/KanjiVG/kanjivg/releases/download/r20250816/kanjivg-20250816-main.zip"
)
RELEASE_SHA256 = "69a2944ec1183086fdee5ba9c1f48bc306b867480a95b2f337f3203bf50689a3"

RELEASE = "kanjivg-release", {"sha256": RELEASE_SHA256}
"""Name and key of the release in the cache."""

_CHARACTER = re.compile(r"(?:.*[/\\])?[0-9a-f]{5}\.svg")  # a variant's name has a suffix


class KanjiVG(SketchDataset["KanjiVG.Settings"]):
    """The non-variant characters of KanjiVG, a tenth of them (at random, seed 0) for validation.

    A character's label is its number of strokes.

    By Ulrich Apel, CC BY-SA 3.0, https://kanjivg.tagaini.net. Read from the setting ``path``, else
    from the last ``kanjivg/*.zip`` in the folder ``$DSTBENCH_DATA``, else from the release of
    August 2025 (6,702 characters, 13 MB), which is downloaded once and checked. Needs
    ``pip install 'dstbench[kanjivg]'``.
    """

    name = "kanjivg"
    packages: ClassVar[Mapping[str, str]] = {"svgpathtools": "dstbench[kanjivg]"}
    typical = Typical(strokes=11.9, length=4.65, source="KanjiVG's mean")

    class Settings(SplitSettings):
        path: Path | None = Field(
            None, description="a release's kanjivg-…-main.zip; none: found or downloaded"
        )

    def availability(self, workspace: Workspace) -> Availability:
        try:
            found = self._found() is not None or workspace.cache.has(*RELEASE)
        except DataError as error:
            return Availability("missing", str(error))
        return READY if found else Availability("download", f"13 MB from {RELEASE_URL}")

    def load(self, workspace: Workspace) -> Data:
        archive = self._found() or _download(workspace)
        settings = self.settings
        try:
            key = {"sha256": file_digest(archive)}
        except OSError as error:
            raise DataError(f"{archive} cannot be read: {error.strerror}") from error
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


def _drawings(archive: Path, settings: KanjiVG.Settings) -> Splits:
    most = settings.most_bytes
    try:
        with ZipFile(archive) as files:
            sizes = {
                file.filename: file.file_size
                for file in files.infolist()
                if _CHARACTER.fullmatch(file.filename)
            }
            if sum(sizes.values()) > most:
                raise DataError(
                    f"{archive} is no release of KanjiVG: its characters would be "
                    f"{sum(sizes.values()):,} bytes, of {most:,} that the setting 'max_megabytes' "
                    "allows"
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
    archives = Path(folder, "kanjivg").glob("*.zip") if folder else ()
    return max(filter(Path.is_file, archives), default=None)


def _download(workspace: Workspace) -> Path:
    """The release, in the cache."""

    def make(folder: Path) -> None:
        workspace.report(f"downloading {RELEASE_URL} (13 MB)")
        try:
            download(RELEASE_URL, folder / "kanjivg.zip", RELEASE_SHA256)
        except OSError as error:
            raise DataError(
                f"KanjiVG could not be downloaded ({error}); get {RELEASE_URL}, and name the file "
                "in the setting 'path' of the dataset 'kanjivg' or put it in $DSTBENCH_DATA/kanjivg"
            ) from error

    return workspace.cache.folder(*RELEASE, make, resumable=True) / "kanjivg.zip"
