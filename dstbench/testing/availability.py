"""Whether data or weights are there: what is promised of telling it, and what checks do with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, get_args
from unittest import SkipTest

import torch

from dstbench.cache import Cache
from dstbench.contracts import Availability, Workspace
from dstbench.testing.checking import Broken, empty_workspace

SECONDS = 10.0
"""Seconds that an ``availability`` may take."""


def check_availability(availability: Callable[[Workspace], Any]) -> None:
    """Raise :class:`Broken` unless an :class:`Availability` is returned within :data:`SECONDS`,
    with a detail where something is missing, and nothing is written into the cache."""
    workspace = empty_workspace()
    start = time.monotonic()
    told = availability(workspace)
    seconds = time.monotonic() - start
    if not isinstance(told, Availability):
        raise Broken(f"availability returned {told!r}, no Availability")
    states = get_args(Availability.__annotations__["state"]) or ("ready", "download", "missing")
    if told.state not in states:
        raise Broken(f"its state is {told.state!r}, none of {', '.join(states)}")
    if told.state != "ready" and not told.detail:
        raise Broken(f"it is '{told.state}', but the detail, what a user could do, is empty")
    if seconds > SECONDS:
        raise Broken(f"it took {seconds:.0f} seconds to tell; at most {SECONDS:.0f} are allowed")
    if written := sorted(path.name for path in workspace.cache.root.glob("*")):
        raise Broken(f"availability has put {', '.join(written)} into the cache")


def ready_workspace(availability: Callable[[Workspace], Availability], what: str) -> Workspace:
    """A workspace with a cache of its own, or with the user's where only that makes it ready.

    Args:
        what: the subject of the reason for a skip, with its verb, such as ``"data is"``.

    Raises:
        unittest.SkipTest: where it is ready with neither.
    """
    own = empty_workspace()
    if availability(own).state == "ready":
        return own
    users = Workspace(torch.device("cpu"), Cache())
    found = availability(users)
    if found.state != "ready":
        raise SkipTest(f"its {what} not there ({found.state}): {found.detail}")
    return users
