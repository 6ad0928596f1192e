"""LSUN bedrooms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from dstbench_images.database import drawn
from dstbench_images.image_folder import PATH, ImageFolder
from dstbench_images.photographs import Splits

DATABASE = "bedroom_train_lmdb"


class LSUNBedrooms(ImageFolder):
    """Photographs of bedrooms: 10,598 for training and 2,500 for validation by default.

    Yu et al., 'LSUN' (2015, arXiv 1506.03365); the numbers of images are those of 'Sparse-to-Sparse
    Training of Diffusion Models' (TMLR 2025). Get ``bedroom_train_lmdb.zip`` (46 GB) by way of
    https://github.com/fyu/lsun and unpack it, or take any folder or zip file of bedrooms. All
    images are drawn from the training part, with seed 0: the validation part has but 300.
    Reading the database needs the package lmdb: ``pip install 'dstbench[lsun]'``. Of a database
    that holds named ones, the images of all of them are read.
    """

    name = "lsun-bedrooms"
    expected = (
        "the unpacked bedroom_train_lmdb (46 GB, by way of https://github.com/fyu/lsun), its "
        "data.mdb, a folder that it is in, or a folder or zip file of images"
    )
    trial_settings: ClassVar[Mapping[str, Any]] = {"image_size": 32, "train": 100, "validation": 40}

    class Settings(ImageFolder.Settings):
        path: str = Field(
            "$DSTBENCH_DATA/lsun-bedrooms",
            description="bedroom_train_lmdb, its data.mdb, a folder that it is in, or a folder or "
            f"zip file of images{PATH}",
        )
        train: int | None = Field(10_598, ge=1, description="images to train with")
        validation: int | None = Field(2500, ge=1, description="images for validation")

    def state(self, root: Path) -> str:
        database = _database(root)
        if database is None:
            return super().state(root)
        content = database.stat()
        return f"{content.st_size} {content.st_mtime_ns}"

    def splits(self, root: Path, report: Callable[[str], None]) -> Splits:
        database = _database(root)
        if database is None:
            return super().splits(root, report)
        splits = drawn(database, self.settings)
        report(
            f"{database}: {len(splits.train):,} for training and {len(splits.validation):,} for "
            "validation, drawn from the database"
        )
        return splits


def _database(root: Path) -> Path | None:
    """The database's file, if there is one."""
    if root.suffix in {".mdb", ".lmdb"} and not root.is_dir():
        return root
    files = (folder / "data.mdb" for folder in (root, root / DATABASE))
    return next((file for file in files if file.exists()), None)
