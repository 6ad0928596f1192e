"""Waiting for what other processes do."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS_BETWEEN_BEATS = 0.1
"""Pause between two signs of life, and between two looks."""


def wait(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition came true within that time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(SECONDS_BETWEEN_BEATS)
    return False
