"""One function over many items, in other processes where they are enough for that to pay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

__all__ = ["parallel_map"]
T = TypeVar("T")
R = TypeVar("R")


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
