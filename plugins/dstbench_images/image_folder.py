"""Any folder or zip file of images."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar
from zipfile import BadZipFile, ZipFile

import numpy as np
from pydantic import Field

from dstbench.cache import digest, file_digest
from dstbench.contracts import READY, Availability, Data, Dataset, Items, Workspace
from dstbench.errors import DataError
from dstbench_images.photographs import PhotographSettings, Source, Splits, prepare

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}

VALIDATION = ("validation", "val", "valid", "test")
"""Folders beside ``train`` whose images are held out: the first of them that is there."""

HELD_OUT = 0.1
"""The part of the images that is for validation, where no folder and no setting says which."""

Files = Mapping[PurePosixPath, Callable[[], bytes]]
"""Functions that read the image files, by path below the root."""


class ImageFolder(Dataset["ImageFolder.Settings"]):
    """The images of a folder or zip file and its subfolders, in colour.

    If there are a folder ``train`` and one of ``validation``, ``val``, ``valid`` or ``test``, they
    are the splits; else a tenth of all images, drawn with seed 0, is for validation. The folder
    that an image lies in, below that, is its label.
    """

    name = "image-folder"
    kind = "images"
    trial_settings: ClassVar[Mapping[str, Any]] = {"image_size": 32}
    expected: ClassVar[str] = "a folder or a zip file of images"
    """What the setting ``path`` should name, in words."""

    class Settings(PhotographSettings):
        path: str = Field(
            description="the folder or zip file; $NAME and ~ stand for what they do in a shell"
        )
        train: int | None = Field(
            None, ge=1, description="images to train with, drawn with seed 0; none: all"
        )
        validation: int | None = Field(
            None,
            ge=1,
            description="images for validation, drawn with seed 0; none: all of their folder, "
            "else a tenth of all",
        )

    def outline(self) -> Items:
        return Items((3, self.settings.image_size, self.settings.image_size))

    def availability(self, workspace: Workspace) -> Availability:
        try:
            self.root(workspace)
        except DataError as error:
            return Availability("missing", str(error))
        return READY

    def load(self, workspace: Workspace) -> Data:
        settings = self.settings
        root = self.root(workspace)
        key = {
            "source": self.state(root),
            "train": settings.train,
            "validation": settings.validation,
        }
        return prepare(self.name, key, lambda: self.splits(root), settings, workspace)

    def root(self, workspace: Workspace) -> Path:
        """The path of the images. Raises :class:`~dstbench.errors.DataError` if there is none."""
        path = self.settings.path
        root = os.path.expandvars(path)
        if unknown := re.search(r"\$\{?(\w+)", root):
            raise DataError(
                f"the setting 'path' of the dataset '{self.name}' is {path}, "
                f"but the environment variable {unknown[1]} is not set; "
                f"it should name {self.expected}"
            )
        if not (found := Path(root).expanduser()).exists():
            raise DataError(
                f"the setting 'path' of the dataset '{self.name}' names {root}, where there is "
                f"nothing; it should name {self.expected}"
            )
        return found

    def state(self, root: Path) -> str:
        """A hash that changes with every file."""
        return _state(root) if root.is_dir() else file_digest(root)

    def splits(self, root: Path) -> Splits:
        """The image files of training and validation."""
        files = _of_folder(root) if root.is_dir() else _of_zip(root)
        return _splits(files, root, self.settings.train, self.settings.validation)


def _splits(files: Files, root: Path, train: int | None, validation: int | None) -> Splits:
    if not files:
        raise DataError(f"{root}: no image is here ({', '.join(sorted(SUFFIXES))})")
    files = _below_common_folder(files)
    folders = {path.parts[0] for path in files if len(path.parts) > 1}
    held_out = next((name for name in VALIDATION if name in folders), None)
    if "train" in folders and held_out:
        return Splits(
            _drawn(_sources(files, "train"), train, f"{root}: train"),
            _drawn(_sources(files, held_out), validation, f"{root}: {held_out}"),
        )
    sources = _sources(files)
    order = np.random.default_rng(0).permutation(len(sources))
    count = validation or round(HELD_OUT * len(sources))
    return Splits(
        _drawn([sources[i] for i in order[count:]], train, f"{root}, less {count} for validation"),
        _drawn([sources[i] for i in order[:count]], validation, f"{root}"),
    )


def _sources(files: Files, folder: str = ".") -> list[Source]:
    """The files below a folder, in the order of their names."""
    return [
        Source(str(path), files[path], label=str(path.relative_to(folder).parent).strip("."))
        for path in sorted(files)
        if path.is_relative_to(folder)
    ]


def _drawn(sources: Sequence[Source], count: int | None, where: str) -> Sequence[Source]:
    if count is None:
        return sources
    if count > len(sources):
        raise DataError(f"{where}: {len(sources)} images are here, of {count} asked for")
    chosen = np.random.default_rng(0).permutation(len(sources))[:count]
    return [sources[i] for i in sorted(chosen)]


def _below_common_folder(files: Files) -> Files:
    """Without the folder that all files are in, such as archives tend to have."""
    tops = {path.parts[0] for path in files}
    if len(tops) > 1 or any(len(path.parts) == 1 for path in files):
        return files
    return {path.relative_to(*tops): read for path, read in files.items()}


def _of_folder(root: Path) -> Files:
    return {
        PurePosixPath(path.relative_to(root).as_posix()): path.read_bytes for path in _images(root)
    }


def _of_zip(root: Path) -> Files:
    try:
        archive = ZipFile(root)
    except (BadZipFile, OSError) as error:
        raise DataError(f"{root} is damaged, or no zip file: {error}") from error
    return {
        path: partial(archive.read, entry)
        for entry in archive.infolist()
        if _is_image(path := PurePosixPath(entry.filename))
    }


def _images(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if _is_image(path.relative_to(root))]


def _is_image(path: PurePosixPath | Path) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def _state(root: Path) -> str:
    """A hash of names, sizes and times of change: that of all pixels would take too long."""
    stats = {str(path): path.stat() for path in _images(root)}
    return digest({name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()})
