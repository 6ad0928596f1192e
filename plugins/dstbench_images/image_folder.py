"""Any folder or zip file of images."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from string import Template
from typing import Any, ClassVar

from pydantic import Field

from dstbench.cache import file_digest
from dstbench.contracts import READY, Availability, Data, Dataset, Items, Workspace
from dstbench.errors import DataError
from dstbench.files import open_regular
from dstbench_images.entries import of_folder, of_zip, state
from dstbench_images.photographs import PhotographSettings, Splits, prepare
from dstbench_images.splits import split

PATH = (
    "; $NAME stands for an environment variable, if there is one of this name, $$ for $, and ~ for "
    "the home folder"
)
"""What may be in a path, for descriptions of settings."""


class ImageFolder(Dataset["ImageFolder.Settings"]):
    """The images of a folder or zip file and its subfolders, in colour.

    Folders ``train`` or ``training`` and ``validation``, ``val``, ``valid`` or ``dev`` (else
    ``test`` or ``testing``), in capitals or not, are the splits; where one of both is missing, a
    tenth of all images, drawn with seed 0, is for validation. The folder that an image lies in,
    below that, is its label. Links are followed. Read are BMP, GIF (of an animation, the first
    image), JPEG, PNG, PNM, TIFF and WebP files; what was taken as which split, and what was left
    out, is said in one line.
    """

    name = "image-folder"
    kind = "images"
    trial_settings: ClassVar[Mapping[str, Any]] = {"image_size": 32}
    expected: ClassVar[str] = "a folder or a zip file of images"
    """What the setting ``path`` should name, in words."""

    class Settings(PhotographSettings):
        path: str = Field(description=f"the folder or zip file{PATH}")
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

        def report(message: str) -> None:
            workspace.report(f"{self.name}: {message}")

        return prepare(self.name, key, lambda: self.splits(root, report), settings, workspace)

    def root(self, workspace: Workspace) -> Path:
        """The path of the images. Raises :class:`~dstbench.errors.DataError` if there is none."""
        path = Template(self.settings.path)
        root = path.safe_substitute(os.environ)
        says = f"the setting 'path' of the dataset '{self.name}'"
        try:
            found = Path(root).expanduser()
            if not found.is_dir():
                open_regular(found).close()
        except FileNotFoundError:
            unset = [name for name in path.get_identifiers() if name not in os.environ]
            if unset:
                raise DataError(
                    f"{says} is {path.template}, but the environment variable {unset[0]} is not "
                    f"set; it should name {self.expected}"
                ) from None
            raise DataError(
                f"{says} names {root}, where there is nothing; it should name {self.expected}"
            ) from None
        except (OSError, RuntimeError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise DataError(
                f"{says} names {root}, which cannot be read ({why}); it should name {self.expected}"
            ) from error
        return found

    def state(self, root: Path) -> str:
        """A hash that changes with every file."""
        return state(root) if root.is_dir() else file_digest(root)

    def splits(self, root: Path, report: Callable[[str], None]) -> Splits:
        """The image files of training and validation; what they are is reported."""
        settings = self.settings
        read = of_folder if root.is_dir() else of_zip
        listing = read(root, settings.most_bytes)
        return split(listing, str(root), settings.train, settings.validation, report)
