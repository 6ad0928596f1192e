"""Moments of a run: each call of a function, in Python or in C, and the phase that it falls into.

A moment is the same in every run of the same grid, whatever the machine's speed, and there are
hundreds of thousands: between any two things that a run does to a file there is one.
"""

import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any

PHASES = (
    "start",
    "preparing",
    "first stage",
    "latents",
    "training",
    "checkpoint writing",
    "sampling",
    "scoring",
    "record writing",
    "after the record",
)


def _functions() -> dict[str, tuple[tuple[Any, str], ...]]:
    """The functions that each phase consists of, by what they stand in."""
    from dstbench_ldm import first_stage

    from dstbench.execution.pipeline import Pipeline
    from dstbench.execution.scoring import Scorer
    from dstbench.execution.training import Trainer
    from dstbench.store.folder import CellFolder

    scoring = ("score_all", "features", "beside_real_images")
    return {
        "preparing": ((Pipeline, "run"),),
        "first stage": ((first_stage, "_trained"),),
        "latents": ((first_stage, "_encoded"),),
        "training": ((Trainer, "train"),),
        "checkpoint writing": ((CellFolder, "write_checkpoint"),),
        "sampling": ((Pipeline, "_sample"),),
        "scoring": tuple((Scorer, name) for name in scoring),
        "record writing": ((CellFolder, "write_record"),),
    }


class Watch:
    """Counts the moments of this process's main thread: of one phase, or of all."""

    def __init__(self, phase: str | None = None) -> None:
        self.phase = phase
        self.counts: Counter[str] = Counter()
        self._stack = ["start"]
        self._number = 0
        self._act: Callable[[], object] = lambda: None

    def at(self, number: int, act: Callable[[], object]) -> None:
        """Have something done at the moment of that number in the phase, counted from 1."""
        self._number, self._act = number, act

    def begin(self) -> None:
        for phase, places in _functions().items():
            for owner, name in places:
                setattr(owner, name, self._around(phase, getattr(owner, name)))
        self._look()

    def _around(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def around(*arguments: Any, **named: Any) -> Any:
            self._stack.append(phase)
            self._look()
            try:
                return function(*arguments, **named)
            finally:
                self._stack.pop()
                if phase == "record writing":
                    self._stack[0] = "after the record"
                self._look()

        return around

    def _look(self) -> None:
        """See calls, which makes them slow, in no other phase than is asked for."""
        sys.setprofile(self._see if self.phase in (None, self._stack[-1]) else None)

    def _see(self, frame: FrameType, event: str, argument: object) -> None:
        phase = self._stack[-1]
        self.counts[phase] += 1
        if self.counts[phase] == self._number:
            self._act()


def count_into(path: Path) -> Callable[[], None]:
    """What a process does first whose moments are to be counted into a file."""

    def begin() -> None:
        watch = Watch()
        watch.begin()
        end = os._exit

        def note(code: int) -> None:
            sys.setprofile(None)
            path.write_text(json.dumps(watch.counts))
            end(code)

        os._exit = note  # type: ignore[assignment]

    return begin


def kill_at(phase: str, number: int, after: float = 0) -> Callable[[], None]:
    """What a process does first that is to be killed at a moment, or some seconds after it,
    wherever it is by then."""

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def begin() -> None:
        watch = Watch()
        timer = threading.Timer(after, kill)
        timer.daemon = True
        watch.at(phase, number, timer.start if after else kill)
        watch.begin()

    return begin
