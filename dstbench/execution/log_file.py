"""The file that keeps what a run tells, line by line, from all of its processes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dstbench.errors import ConfigError
from dstbench.store.files import now


def begin(path: Path) -> None:
    """Make the file, if it is not there: what is in it stays.

    Raises :class:`ConfigError` where it cannot be written to.
    """
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path}: is no file that could be written to")
        path.open("a").close()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written to: {error.strerror}") from None


def add(path: Path, text: str) -> None:
    """Add lines, each with the time (ISO 8601, UTC), at once. A machine that does not see the file
    adds none."""
    stamp = now()
    lines = "".join(f"{stamp} {line}\n" for line in text.splitlines())
    with suppress(OSError):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(file, lines.encode(errors="replace"))
        finally:
            os.close(file)


def report_into(path: Path, report: Callable[[str], None]) -> Callable[[str], None]:
    """A function that reports, and adds what it reports; so is from now on what the logger
    ``dstbench`` of this process warns of."""

    def both(message: str) -> None:
        report(message)
        add(path, message)

    logging.getLogger("dstbench").addHandler(_Warnings(both))
    return both


class _Warnings(logging.Handler):
    def __init__(self, report: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        self._report(record.getMessage())
