"""The images of an LMDB database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dstbench.errors import DataError
from dstbench.files import open_regular
from dstbench.plugins import require
from dstbench_images.photographs import Source, Splits
from dstbench_images.splits import HELD_OUT

MOST_INNER = 1000
"""Named databases in a database at most."""

INNER = 48
"""Bytes of the entry that stands for a named database in the one that it is in; an image has
more."""

Key = tuple[bytes | None, bytes]
"""The name of a database in the database, if it is in one, and a key."""


class Counts(Protocol):
    """How many images are wanted, and how large each may be."""

    @property
    def train(self) -> int | None: ...
    @property
    def validation(self) -> int | None: ...
    @property
    def most_bytes(self) -> int: ...


def drawn(file: Path, settings: Counts) -> Splits:
    """As many images as asked for, or all, drawn with seed 0.

    The database is first read by another process: reading what is not there of a mapped file ends
    the process that does, and only what is missing at a file's end can be seen before.

    Raises :class:`~dstbench.errors.DataError` for a damaged database and for too few images, and
    :class:`~dstbench.errors.PluginError` if the package lmdb is not installed.
    """
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    require("lmdb", "the database of dataset 'lsun-bedrooms'", "dstbench[lsun]")
    executor = get_reusable_executor(max_workers=1)
    arguments = settings.train, settings.validation, settings.most_bytes
    try:
        train, validation = executor.submit(_draw, file, *arguments).result()
    except TerminatedWorkerError as error:
        raise DataError(f"{file} is damaged: reading it ended the process that tried") from error
    finally:
        executor.shutdown()
    with _damage_named(file):
        environment = _open(file)

    def sources(keys: list[Key]) -> list[Source]:
        return [
            Source(
                key.decode(errors="backslashreplace"),
                partial(_read, environment, (inner, key), settings.most_bytes),
            )
            for inner, key in keys
        ]

    return Splits(sources(train), sources(validation))


def _draw(
    file: Path, train: int | None, validation: int | None, most: int
) -> tuple[list[Key], list[Key]]:
    """The keys of the images for training and validation, each of which was read."""
    with _damage_named(file):
        environment = _open(file)
        keys = list(_keys(environment))
        order = np.random.default_rng(0).permutation(len(keys))
        validation = validation or round(HELD_OUT * len(keys))
        wanted = validation + (train or len(keys) - validation)
        if wanted > len(keys):
            raise DataError(f"{file}: {len(keys)} images are here, of {wanted} asked for")
        chosen = [keys[i] for i in order[:wanted]]
        for key in chosen:
            with suppress(OSError):  # too large: one of the bad files
                _read(environment, key, most)
    return chosen[validation:], chosen[:validation]


@contextmanager
def _damage_named(file: Path) -> Iterator[None]:
    import lmdb

    try:
        yield
    except (lmdb.Error, OSError) as error:
        raise DataError(f"{file} is damaged, or no LMDB database: {error}") from error


def _open(file: Path) -> Any:
    import lmdb

    open_regular(file).close()
    if not file.stat().st_size:
        raise DataError(f"{file} is damaged: it is empty")
    # torchvision's reader would keep its list of keys as a pickle in the current folder.
    environment = lmdb.open(
        str(file), subdir=False, readonly=True, lock=False, readahead=False, max_dbs=MOST_INNER
    )
    used = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if (size := file.stat().st_size) < used:
        raise DataError(f"{file} is damaged: it has {size:,} bytes, of {used:,}")
    return environment


def _keys(environment: Any) -> Iterator[Key]:
    """Those of all images."""
    with environment.begin(buffers=True) as transaction:
        entries = [(bytes(key), len(value)) for key, value in transaction.cursor()]
    for key, size in entries:
        inner = _inner(environment, key) if size == INNER else None
        if inner is None:
            yield None, key
            continue
        with environment.begin(inner) as transaction:
            for name in transaction.cursor().iternext(keys=True, values=False):
                yield key, name


def _inner(environment: Any, key: bytes) -> Any:
    """The database of this name, if it is one."""
    import lmdb

    try:
        return environment.open_db(key, create=False)
    except lmdb.IncompatibleError:
        return None


def _read(environment: Any, key: Key, most: int) -> bytes:
    inner, name = key
    database = None if inner is None else environment.open_db(inner, create=False)
    with environment.begin(database, buffers=True) as transaction:
        content = transaction.get(name)
        if len(content) > most:
            raise OSError(f"more than the {most:,} bytes allowed")
        return bytes(content)
