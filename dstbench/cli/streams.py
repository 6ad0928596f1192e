"""Standard output and error as they may be: not UTF-8, full, closed, or a terminal that obeys."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from io import TextIOWrapper

_OBEYED = {*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)} - {9, 10}
"""What a terminal obeys instead of showing it: control characters, and changes of direction."""

_SHOWN = {code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" for code in _OBEYED}


def clean(text: str) -> str:
    """The text with what a terminal would obey written out, as ``\\x1b``."""
    return text.translate(_SHOWN)


def replace_what_cannot_be_encoded() -> None:
    """Let no character that the locale does not know end the process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def is_about_output(error: OSError) -> bool:
    """Whether an error is one of writing to a stream, not to a file, which would be named."""
    return error.filename is None and error.errno in (errno.ENOSPC, errno.EPIPE, errno.EIO)


def output_error() -> OSError | None:
    """Why what is left for standard output cannot be written to it; ``None``: it was."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        return error
    return None


def leave_output() -> None:
    """Write nothing more to standard output, not even what it has left when the process ends."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
