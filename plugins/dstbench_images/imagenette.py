"""Imagenette: ten easy classes of ImageNet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shutil import rmtree
from typing import Any, ClassVar

from pydantic import Field

from dstbench.contracts import READY, Availability, Workspace
from dstbench.download import download
from dstbench.errors import DataError
from dstbench_images.image_folder import ImageFolder

SIZE = "320px"
"""The published archive whose shorter sides are nearest to 256 pixels from above."""

KEY = {"size": SIZE}
"""Key of the unpacked archive in the cache."""

ARCHIVE = "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz"
"""What torchvision would download, and checks."""

SOURCE = "https://github.com/fastai/imagenette"


class Imagenette(ImageFolder):
    """9,469 photographs for training and 3,925 for validation, in ten classes of ImageNet.

    By fast.ai, https://github.com/fastai/imagenette, the version of 320 pixels. Downloaded once
    (about 340 MB) and checked by torchvision, where the setting ``path`` names nothing else.
    """

    name = "imagenette"
    expected = f"the unpacked archive of {SOURCE}, or any folder or zip file with train and val"
    trial_settings: ClassVar[Mapping[str, Any]] = {"image_size": 32, "train": 100, "validation": 40}

    class Settings(ImageFolder.Settings):
        path: str = Field(
            "",
            description="the unpacked archive, or any folder or zip file with train and val; "
            "none: downloaded",
        )

    def availability(self, workspace: Workspace) -> Availability:
        if self.settings.path:
            return super().availability(workspace)
        if workspace.cache.has("imagenette", KEY):
            return READY
        return Availability("download", f"about 340 MB from {SOURCE}")

    def root(self, workspace: Workspace) -> Path:
        return super().root(workspace) if self.settings.path else _download(workspace)


def _download(workspace: Workspace) -> Path:
    from torchvision.datasets import Imagenette as Published

    def make(folder: Path) -> None:
        workspace.report(f"downloading Imagenette, {SIZE} (about 340 MB)")
        unpacked, archive = folder / "imagenette2-320", folder / Path(ARCHIVE).name
        try:
            rmtree(unpacked, ignore_errors=True)  # what there is may be a part of it
            if not archive.exists():
                download(ARCHIVE, archive)
            Published(folder, size=SIZE, download=True)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"Imagenette could not be downloaded ({error}); get it from {SOURCE}, and name the "
                "unpacked folder in the setting 'path' of the dataset 'imagenette'"
            ) from error

    return workspace.cache.folder("imagenette", KEY, make, resumable=True) / "imagenette2-320"
