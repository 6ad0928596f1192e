"""What a plugin's failure costs: its own cells, and nothing else."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Thread
from typing import Any

FAILURES = (Exception, SystemExit)
"""Whatever a plugin may raise; Ctrl-C is not its doing, and ends a run."""


@contextmanager
def isolate(tell: Callable[[str], object], but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Tell the traceback of what fails in here instead of raising it; raise ``but`` as it is."""
    try:
        yield
    except but:
        raise
    except FAILURES:
        tell(traceback.format_exc())


def call_with_timeout(minutes: float | None, function: Callable[[], object]) -> None:
    """Call ``function``; with a limit in a thread, which is left alone if it hangs, and ends with
    the process.

    Raises:
        TimeoutError: if it takes longer.
    """
    if minutes is None:
        function()
        return
    done: Future[None] = Future()

    def work() -> None:
        try:
            function()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    Thread(target=work, daemon=True).start()
    try:
        done.result(60 * minutes)
    except TimeoutError:
        if done.done():
            raise
        raise TimeoutError(
            f"not done within {minutes:g} minutes, the benchmark's limit for a cell"
        ) from None


class Aside:
    """A thread that calls one function after another, and may be left alone where one hangs: it
    ends with the process."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        Thread(target=self._serve, daemon=True).start()

    def call(self, seconds: float, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function returns; what it raises is raised here.

        Raises:
            TimeoutError: if it takes longer.
        """
        done: Future[Any] = Future()
        self._calls.put((done, lambda: function(*arguments)))
        return done.result(seconds)

    def close(self) -> None:
        """End the thread, once it has come back from its calls."""
        self._calls.put(None)

    def _serve(self) -> None:
        while call := self._calls.get():
            done, function = call
            try:
                done.set_result(function())
            except BaseException as error:
                done.set_exception(error)
