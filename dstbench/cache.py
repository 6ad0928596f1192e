"""A content-addressed cache of folders: made once, shared by all cells and processes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock
from platformdirs import user_cache_path

from dstbench.checksums import MANIFEST, damage, file_digest, write_manifest
from dstbench.disk import share, unwritable
from dstbench.errors import StoreError

__all__ = ["Cache", "digest", "file_digest"]

logger = logging.getLogger("dstbench")

KEY = "key.json"


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def canonical(key: Any) -> str:
    """The JSON text of a key, the same whatever the order in which its dictionaries were made."""
    return _ENCODER.encode(key)


def digest(key: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a JSON-able mapping, whatever the order of its keys."""
    return hashlib.sha256(canonical(key).encode()).hexdigest()


class Cache:
    """Folders under ``root``, each named by what it holds and a hash of all that determines it.

    Each has checksums of its files: one that is damaged is as good as none. The default root is
    ``$DSTBENCH_CACHE``, else the user's cache folder.

    Raises :class:`StoreError` where that is in the home folder of nobody.
    """

    def __init__(self, root: Path | None = None) -> None:
        given = root or os.environ.get("DSTBENCH_CACHE")
        try:
            self.root = Path(given or user_cache_path("dstbench")).expanduser()
        except RuntimeError:
            raise StoreError(
                f"{given or 'the cache'}: no such home folder is known; name a folder in "
                "DSTBENCH_CACHE"
            ) from None

    def has(self, name: str, key: Mapping[str, Any]) -> bool:
        """Whether there is a folder for ``key``, whole."""
        target = self._path(name, key)
        return target.exists() and _damage(target) is None

    def folder(
        self,
        name: str,
        key: Mapping[str, Any],
        make: Callable[[Path], None],
        *,
        resumable: bool = False,
    ) -> Path:
        """The folder for ``key``, made by ``make(empty folder)`` if it is not there yet.

        A folder appears whole or not at all; of two processes that want the same one, the second
        waits for the first. A ``make`` that is ``resumable`` finds what a stopped one has left;
        what it leaves that is named ``*.partial`` is no part of the folder. A folder whose files
        are no longer what was written is removed, with a warning, and made anew.

        Raises :class:`StoreError` if there can be no cache at ``root``, or nothing can be written
        there.
        """
        target = self._path(name, key)
        if target.exists() and _damage(target) is None:
            return target
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{target}.lock"):
                if target.exists() and (found := _damage(target)):
                    logger.warning("%s: damaged (%s): removed, to be made anew", target, found)
                    _remove(target)
                if not target.exists():
                    self._make(target, key, make, resumable)
        except Exception as error:
            if isinstance(error, StoreError) or not (reason := self._unusable(error)):
                raise
            raise StoreError(
                f"{self.root}: there can be no cache here: {reason}; "
                "name another folder in DSTBENCH_CACHE"
            ) from error
        return target

    def _make(
        self, target: Path, key: Mapping[str, Any], make: Callable[[Path], None], resumable: bool
    ) -> None:
        unfinished = Path(f"{target}.partial")
        if not resumable:
            shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(exist_ok=True)
        if damage(unfinished) is not None:  # else it was stopped when all was there
            make(unfinished)
            (unfinished / KEY).write_text(json.dumps(key, indent=2, sort_keys=True))
            write_manifest(unfinished)
        for path in unfinished.rglob("*.partial"):
            path.unlink()
        share(unfinished)
        unfinished.rename(target)

    def _unusable(self, error: Exception) -> str | None:
        if not self.root.is_dir() and isinstance(error, OSError):
            return error.strerror
        return unwritable(error, self.root)

    def _path(self, name: str, key: Mapping[str, Any]) -> Path:
        return self.root / f"{name}-{digest(key)[:16]}"


def _damage(target: Path) -> str | None:
    """What is wrong with a folder; ``None``: nothing. One of a version that kept no checksums is
    believed, and has some from now on."""
    if not (target / MANIFEST).exists() and (target / KEY).exists():
        with suppress(OSError):
            write_manifest(target)
        return None
    return damage(target)


def _remove(target: Path) -> None:
    """Remove a folder, which is not there even where that is cut off half-way."""
    doomed = target.with_name(f"{target.name}.damaged")
    _delete(doomed)
    target.rename(doomed)
    _delete(doomed)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
