"""A content-addressed cache of folders: made once, shared by all cells and processes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock
from platformdirs import user_cache_path

from dstbench.errors import StoreError
from dstbench.files import open_regular

__all__ = ["Cache", "digest", "file_digest"]


def canonical(key: Any) -> str:
    """The JSON text of a key, the same whatever the order in which its dictionaries were made."""
    return json.dumps(key, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(key: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a JSON-able mapping, whatever the order of its keys."""
    return hashlib.sha256(canonical(key).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a regular file's bytes. Raises :class:`OSError` where it is no such file."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Cache:
    """Folders under ``root``, each named by what it holds and a hash of all that determines it.

    The default root is ``$DSTBENCH_CACHE``, else the user's cache folder.
    """

    def __init__(self, root: Path | None = None) -> None:
        default = os.environ.get("DSTBENCH_CACHE") or user_cache_path("dstbench")
        self.root = Path(root or default).expanduser()

    def has(self, name: str, key: Mapping[str, Any]) -> bool:
        """Whether there is a folder for ``key``."""
        return self._path(name, key).exists()

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
        waits for the first. A ``make`` that is ``resumable`` finds what a stopped one has left.

        Raises :class:`StoreError` if there can be no cache at ``root``.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{self.root}: there can be no cache here: {error.strerror}; "
                "name another folder in DSTBENCH_CACHE"
            ) from None
        target = self._path(name, key)
        if target.exists():
            return target
        with FileLock(f"{target}.lock"):
            if not target.exists():
                unfinished = Path(f"{target}.partial")
                if not resumable:
                    shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir(exist_ok=True)
                make(unfinished)
                (unfinished / "key.json").write_text(json.dumps(key, indent=2, sort_keys=True))
                unfinished.rename(target)
        return target

    def _path(self, name: str, key: Mapping[str, Any]) -> Path:
        return self.root / f"{name}-{digest(key)[:16]}"
