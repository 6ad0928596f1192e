"""How long a cell may take."""

from __future__ import annotations

import faulthandler
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def time_limit(minutes: float | None, timeout: Path) -> Iterator[None]:
    """End this process if it is here for longer, with a traceback of all threads in that file.

    Nothing gentler stops what hangs, in C code perhaps.
    """
    if minutes is None:
        yield
        return
    timeout.unlink(missing_ok=True)  # it may be a link
    with timeout.open("x") as file:
        faulthandler.dump_traceback_later(60 * minutes, exit=True, file=file)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            timeout.unlink(missing_ok=True)
