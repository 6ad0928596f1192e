"""What a plugin's failure costs: its own cells, and nothing else."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

FAILURES = (Exception, SystemExit)
"""Whatever a plugin may raise; Ctrl-C is not its doing, and ends a run."""


@contextmanager
def contained(
    tell: Callable[[str], object], but: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Tell the traceback of what fails in here instead of raising it; raise ``but`` as it is."""
    try:
        yield
    except but:
        raise
    except FAILURES:
        tell(traceback.format_exc())
