"""Files from the web, whose download goes on where a stopped one has left it."""

from __future__ import annotations

import json
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from shutil import copyfileobj
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from dstbench.checksums import file_digest
from dstbench.files import read_regular

__all__ = ["download"]

TIMEOUT = 30
"""Seconds without an answer after which a download is given up."""


def download(url: str, path: Path, sha256: str | None = None) -> None:
    """Download a file, which appears at ``path`` whole or not at all.

    What there is of it until then stays beside it. The next download asks the server for the rest,
    if it still has the same file, as its ETag or Last-Modified says, and else begins anew.

    Raises :class:`OSError` where it cannot be got or written, or is not the one with this checksum.
    """
    unfinished = path.with_name(f"{path.name}.partial")
    of = path.with_name(f"{path.name}.version.partial")
    try:
        response, there = _open(url, *_left(url, unfinished, of))
        with response, unfinished.open("ab") as file:
            file.truncate(there)
            of.write_text(json.dumps([url, _version(response)]), encoding="utf-8")
            copyfileobj(response, file, 2**16)
            size = file.tell()
            expected = there + int(response.headers.get("Content-Length", size - there))
    except HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    if size < expected:
        raise OSError(f"it ended after {size:,} of {expected:,} bytes")
    if sha256 is not None and file_digest(unfinished) != sha256:
        unfinished.unlink()
        raise OSError(f"what {url} leads to is another file: its SHA-256 is not {sha256}")
    unfinished.replace(path)
    of.unlink()


def _left(url: str, unfinished: Path, of: Path) -> tuple[int, str]:
    """How many bytes of a file are there, and of which version of it."""
    try:
        seen, version = json.loads(read_regular(of, 2**16))
        return (unfinished.stat().st_size if seen == url and version else 0), version
    except (OSError, ValueError, TypeError):
        return 0, ""


def _open(url: str, there: int, version: str) -> tuple[Any, int]:
    """The answer of the server, and how many bytes are before those that it sends."""
    if there:
        headers = {"Range": f"bytes={there}-", "If-Range": version}
        with suppress(HTTPError):  # it may say that there is no more of it
            response = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
            if response.status == 200:
                return response, 0
            begins = response.headers.get("Content-Range", "")
            if begins.startswith(f"bytes {there}-") and _version(response) == version:
                return response, there
            response.close()
    return urlopen(url, timeout=TIMEOUT), 0


def _version(response: Any) -> str:
    """What tells a file from what was at its address before, if the server says so."""
    tag: str = response.headers.get("ETag", "")
    is_exact = tag and not tag.startswith("W/")
    return tag if is_exact else response.headers.get("Last-Modified", "")
