"""What ends a command from outside: Ctrl-C, SIGTERM, and a terminal that is closed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dstbench.stopping import SAME_REQUEST, SIGNALS

_SHOW_CURSOR = b"\x1b[?25h"


@contextmanager
def stoppable() -> Iterator[list[int]]:
    """Raise ``KeyboardInterrupt`` at the first signal, and end the process at once at the second;
    the numbers of those that came.

    What the process ignores (under ``nohup``, in the background of a script) it goes on to ignore.
    """
    asked: list[int] = []
    since = 0.0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal since
        asked.append(number)
        if len(asked) == 1:
            since = time.monotonic()
            raise KeyboardInterrupt
        if time.monotonic() - since >= SAME_REQUEST:
            if os.isatty(2):
                os.write(2, _SHOW_CURSOR)
            os._exit(128 + number)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    heard = {n: handler for n, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in heard:
        signal.signal(number, stop)
    try:
        yield asked
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)
