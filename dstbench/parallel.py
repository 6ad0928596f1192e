"""Many processes, and many threads: one function over many items, and how threads wait."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

__all__ = ["MOST", "parallel_map"]
T = TypeVar("T")
R = TypeVar("R")

MOST = 1024
"""Threads, or processes, of one machine at most: torch ends a process that asks for too many."""

SPINNING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")
"""What sets how long OpenMP's threads wait for each other in a loop before they sleep."""


def parallel_map(
    function: Callable[[T], R], items: Iterable[T], *, in_processes: bool
) -> Iterator[R]:
    """``function(item)`` of every item, in their order, as they are asked for.

    In other processes, as many as there are cores, ``function``, items and results are pickled.
    """
    if not in_processes:
        yield from map(function, items)
        return

    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    yield from Parallel(n_jobs=-1, return_as="generator")(delayed(function)(item) for item in items)
    get_reusable_executor().shutdown()  # idle processes would keep their memory for minutes


def spin_briefly() -> None:
    """Let the OpenMP threads of this process and those that it starts wait for each other in a
    short loop only, unless the environment says how long: beside another busy process, a long one
    takes the core from the thread that is waited for.

    OpenMP reads it once, when torch is first imported.
    """
    if not any(name in os.environ for name in SPINNING):
        os.environ["GOMP_SPINCOUNT"] = "1000"
