"""LSUN bedrooms."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from dstbench.errors import DataError
from dstbench.plugins import require
from dstbench_images.image_folder import HELD_OUT, ImageFolder
from dstbench_images.photographs import Source, Splits

DATABASE = "bedroom_train_lmdb"


class LSUNBedrooms(ImageFolder):
    """Photographs of bedrooms: 10,598 for training and 2,500 for validation by default.

    Yu et al., 'LSUN' (2015, arXiv 1506.03365); the numbers of images are those of 'Sparse-to-Sparse
    Training of Diffusion Models' (TMLR 2025). Get ``bedroom_train_lmdb.zip`` (46 GB) by way of
    https://github.com/fyu/lsun and unpack it, or take any folder or zip file of bedrooms. All
    images are drawn from the training part, with seed 0: the validation part has but 300.
    Reading the database needs the package lmdb: ``pip install 'dstbench[lsun]'``.
    """

    name = "lsun-bedrooms"
    expected = (
        "the unpacked bedroom_train_lmdb (46 GB, by way of https://github.com/fyu/lsun), a folder "
        "that it is in, or a folder or zip file of images"
    )
    trial_settings: ClassVar[Mapping[str, Any]] = {"image_size": 32, "train": 100, "validation": 40}

    class Settings(ImageFolder.Settings):
        path: str = Field(
            "$DSTBENCH_DATA/lsun-bedrooms",
            description="bedroom_train_lmdb, a folder that it is in, or a folder or zip file of "
            "images; $NAME and ~ stand for what they do in a shell",
        )
        train: int | None = Field(10_598, ge=1, description="images to train with")
        validation: int | None = Field(2500, ge=1, description="images for validation")

    def state(self, root: Path) -> str:
        database = _database(root)
        if database is None:
            return super().state(root)
        content = (database / "data.mdb").stat()
        return f"{content.st_size} {content.st_mtime_ns}"

    def splits(self, root: Path) -> Splits:
        database = _database(root)
        if database is None:
            return super().splits(root)
        return _drawn(database, self.settings.train, self.settings.validation)


def _database(root: Path) -> Path | None:
    return next((path for path in (root, root / DATABASE) if (path / "data.mdb").exists()), None)


def _drawn(database: Path, train: int | None, validation: int | None) -> Splits:
    environment = _open(database)
    with environment.begin() as transaction:
        keys = list(transaction.cursor().iternext(keys=True, values=False))
    order = np.random.default_rng(0).permutation(len(keys))
    validation = validation or round(HELD_OUT * len(keys))
    wanted = validation + (train or len(keys) - validation)
    if wanted > len(keys):
        raise DataError(f"{database}: {len(keys)} images are here, of {wanted} asked for")
    sources = [
        Source(keys[i].decode(), partial(_read, environment, keys[i])) for i in order[:wanted]
    ]
    return Splits(sources[validation:wanted], sources[:validation])


def _open(database: Path) -> Any:
    lmdb = require("lmdb", "the database of dataset 'lsun-bedrooms'", "dstbench[lsun]")
    # torchvision's reader would keep its list of keys as a pickle in the current folder.
    try:
        return lmdb.open(str(database), readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        raise DataError(f"{database} is damaged, or no LMDB database: {error}") from error


def _read(environment: Any, key: bytes) -> bytes:
    with environment.begin() as transaction:
        content: bytes = transaction.get(key)
    return content
