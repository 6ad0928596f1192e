"""The text of a record, with checksums of what it says and of the files that stand beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dstbench.cache import canonical
from dstbench.errors import StoreError
from dstbench.files import read_regular
from dstbench.records import Record

CHECKSUMS = "sha256"
"""The key of a record's file under which checksums are: of files by name, and of its own content
by :data:`CONTENT`."""

CONTENT = "record"

LARGEST = 2**24
"""Bytes of a record's file at most: hundreds of times what there is to say."""


def record_text(record: Record, files: Mapping[str, str]) -> str:
    """The text of a record, and of the checksums of files.

    Raises:
        StoreError: for a record that could not be read back.
    """
    try:
        told = record.model_dump_json(warnings="error")
        content = json.loads(told)
        sums = {CONTENT: _checksum(content), **files}
        text = json.dumps(content | {CHECKSUMS: sums}, indent=2, ensure_ascii=False) + "\n"
        same = _parse(text.encode())[0].model_dump_json() == told
    except ValueError as error:
        raise StoreError(
            f"the record of {record.cell.id} could not be read back: {error}"
        ) from None
    if not same:
        raise StoreError(f"the record of {record.cell.id} would not be the same when read back")
    return text


def read_record(path: Path) -> tuple[Record, dict[str, str]]:
    """The record in a file, and the checksums of files that it holds.

    Raises:
        FileNotFoundError, NotADirectoryError: where there is none.
        StoreError: for a record that is damaged, or that this version of dstbench cannot read.
    """
    try:
        record, sums = _parse(read_regular(path, LARGEST))
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise StoreError(
            f"{path}: not a record of this version of dstbench ({where}: {problem['msg']}); "
            "move it away to run the cell again"
        ) from None
    except ValueError as error:
        raise StoreError(f"{path}: damaged: {error}; move it away to run the cell again") from None
    if "/" in record.cell.id or "\0" in record.cell.id:
        raise StoreError(f"{path}: of no cell that could have a folder: {record.cell.id!r:.200}")
    return record, sums


def _parse(text: bytes) -> tuple[Record, dict[str, str]]:
    """The record and the checksums of files; ``ValueError`` for a record that was changed."""
    try:
        content = json.loads(text)
        sums = content.pop(CHECKSUMS, {})
        rest = json.dumps(content)
    except (ValueError, AttributeError, RecursionError):
        return Record.model_validate_json(text), {}
    record = Record.model_validate_json(rest)
    # Earlier versions kept no checksums.
    if sums and (not isinstance(sums, dict) or sums.pop(CONTENT, "") != _checksum(content)):
        raise ValueError("it is not what was written")
    return record, sums


def _checksum(content: Any) -> str:
    return sha256(canonical(content).encode()).hexdigest()
