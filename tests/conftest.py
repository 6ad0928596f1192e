"""What all tests share."""

import gc
import signal
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

# A busy machine, or the first use of a library, is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def _signals() -> None:
    """Tests that are started in the background have signals ignored, and so would all processes
    that they start."""
    for name, usual in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


def pytest_collection_finish() -> None:
    """What is imported by now stays: looking for garbage among it takes longer than many a test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_listener_is_left() -> Iterator[None]:
    """A sparsifier that a test has left attached is told of optimizer steps of later tests, until
    the garbage is collected: hundreds of them make each step ten times as long."""
    before = set(_listeners())
    yield
    for listener in _listeners():
        if listener not in before:
            sys.modules["dstbench.sparsity.steps"].stop_listening(listener)


def _listeners() -> list[object]:
    steps = sys.modules.get("dstbench.sparsity.steps")
    found: list[object] = steps.listeners() if steps else []
    return found
