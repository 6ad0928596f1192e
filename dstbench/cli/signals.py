"""What ends a run from outside: Ctrl-C, SIGTERM, and a terminal that is closed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dstbench.execution.stopping import SAME_REQUEST, SIGNALS

_SHOW_CURSOR = b"\x1b[?25h"


class Stopped(KeyboardInterrupt):
    """A signal, by its number, has asked the process to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    @property
    def exit_code(self) -> int:
        """What a shell says of a process that this signal has ended."""
        return 128 + self.number


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise :class:`Stopped` at the first signal, and end the process at once at the second.

    What the process ignores (under ``nohup``, in the background of a script) it goes on to ignore.
    """
    asked: list[float] = []

    def stop(number: int, frame: FrameType | None) -> None:
        asked.append(time.monotonic())
        if len(asked) == 1:
            raise Stopped(number)
        if asked[-1] - asked[0] >= SAME_REQUEST:
            if os.isatty(2):
                os.write(2, _SHOW_CURSOR)
            os._exit(128 + number)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    heard = {n: handler for n, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in heard:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)
