"""LSUN bedrooms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from dstbench.errors import DataError
from dstbench.files import open_regular
from dstbench.plugins import require
from dstbench_images.image_folder import PATH, ImageFolder
from dstbench_images.photographs import Source, Splits
from dstbench_images.splits import HELD_OUT

DATABASE = "bedroom_train_lmdb"

MOST_INNER = 1000
"""Named databases in a database at most."""

INNER = 48
"""Bytes of the entry that stands for a named database in the one that it is in; an image has
more."""

Key = tuple[Any, bytes]
"""A named database (None: the whole one) and a key in it."""


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
        splits = _drawn(database, self.settings)
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


def _drawn(database: Path, settings: ImageFolder.Settings) -> Splits:
    environment = _open(database)
    keys = _keys(environment, database)
    order = np.random.default_rng(0).permutation(len(keys))
    validation = settings.validation or round(HELD_OUT * len(keys))
    wanted = validation + (settings.train or len(keys) - validation)
    if wanted > len(keys):
        raise DataError(f"{database}: {len(keys)} images are here, of {wanted} asked for")
    sources = [
        Source(
            keys[i][1].decode(errors="backslashreplace"),
            partial(_read, environment, keys[i], settings.most_bytes),
        )
        for i in order[:wanted]
    ]
    return Splits(sources[validation:wanted], sources[:validation])


def _open(database: Path) -> Any:
    lmdb = require("lmdb", "the database of dataset 'lsun-bedrooms'", "dstbench[lsun]")
    # torchvision's reader would keep its list of keys as a pickle in the current folder.
    try:
        open_regular(database).close()
        environment = lmdb.open(
            str(database),
            subdir=False,
            readonly=True,
            lock=False,
            readahead=False,
            max_dbs=MOST_INNER,
        )
        used = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    except (lmdb.Error, OSError) as error:
        raise DataError(f"{database} is damaged, or no LMDB database: {error}") from error
    # Reading what is not there of a mapped file would end the process.
    if (size := database.stat().st_size) < used:
        raise DataError(f"{database} is damaged: it has {size:,} bytes, of {used:,}")
    return environment


def _keys(environment: Any, database: Path) -> list[Key]:
    """Those of all images."""
    import lmdb

    try:
        keys: list[Key] = []
        with environment.begin(buffers=True) as transaction:
            entries = [(bytes(key), len(value)) for key, value in transaction.cursor()]
        for key, size in entries:
            inner = _inner(environment, key) if size == INNER else None
            if inner is None:
                keys.append((None, key))
                continue
            with environment.begin(inner) as transaction:
                names = transaction.cursor().iternext(keys=True, values=False)
                keys.extend((inner, name) for name in names)
    except lmdb.Error as error:
        raise DataError(f"{database} is damaged: {error}") from error
    return keys


def _inner(environment: Any, key: bytes) -> Any:
    """The database of this name, if it is one."""
    import lmdb

    try:
        return environment.open_db(key, create=False)
    except lmdb.IncompatibleError:
        return None


def _read(environment: Any, key: Key, most: int) -> bytes:
    database, name = key
    with environment.begin(database, buffers=True) as transaction:
        content = transaction.get(name)
        if len(content) > most:
            raise OSError(f"more than the {most:,} bytes allowed")
        return bytes(content)
