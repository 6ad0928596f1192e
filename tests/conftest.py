"""What all tests share."""

import signal

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
