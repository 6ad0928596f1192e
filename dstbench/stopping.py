"""Signals that ask a process to end, held back until what it is doing is whole."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

SAME_REQUEST = 1.0
"""Seconds in which further signals are the same request: one may come from the terminal, or to all
processes of a job, and from the parent as well."""


class Held:
    """Holds back what Ctrl-C and its like do, until :meth:`deliver`.

    A second request is not held back. What a process ignores it goes on to ignore; in a thread
    that is not the main one, signals are not this one's to hold.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        """The number of the signal that is held back."""
        self._since = 0.0
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Held:
        self._hold()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._let_go()
        if not isinstance(error, KeyboardInterrupt):
            self.deliver()

    def deliver(self) -> None:
        """Let the signal do now what it would have done, if one was received."""
        if self.received is None:
            return
        number, self.received = self.received, None
        holding = bool(self._handlers)
        handler = self._handlers[number] if holding else signal.getsignal(number)
        self._let_go()
        _handle(number, handler, None)
        if holding:
            self._hold()

    def _hold(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):
                self._handlers[number] = handler
                signal.signal(number, self._receive)

    def _let_go(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.received is None:
            self.received, self._since = number, now
        elif now - self._since >= SAME_REQUEST:
            handler = self._handlers[number]
            self._let_go()
            self.received = None
            _handle(number, handler, frame)


def _handle(number: int, handler: Any, frame: FrameType | None) -> None:
    if callable(handler):
        handler(number, frame)
    else:  # the system's, which ends the process
        os.kill(os.getpid(), number)
