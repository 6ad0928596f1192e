"""What all tests share."""

import gc
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which what tests need of it is made once: kernels, traced digits, features."""
    folder = tmp_path_factory.getbasetemp()
    parallel = "PYTEST_XDIST_WORKER" in os.environ  # has a folder in that of all workers
    return (folder.parent if parallel else folder) / "cache"


@pytest.fixture
def needs_slurm() -> None:
    """Skips a test where Slurm is not installed, or does not answer."""
    if shutil.which("sinfo") is None or subprocess.run(["sinfo"], capture_output=True).returncode:
        pytest.skip("there is no Slurm here")


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
