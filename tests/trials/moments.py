"""Phases of a run, and the death of a process at a moment of one of them."""

import mmap
import os
import signal
import struct
import time
from collections.abc import Callable
from functools import wraps
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


def tell_phases(tell: Callable[[str], object]) -> None:
    """Call ``tell`` with the phase whenever this process comes into another one."""
    stack = ["start"]

    def around(phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(*arguments: Any, **named: Any) -> Any:
            stack.append(phase)
            tell(phase)
            try:
                return function(*arguments, **named)
            finally:
                stack.pop()
                if phase == "record writing":
                    stack[0] = "after the record"
                tell(stack[-1])

        return run

    tell("start")
    for phase, places in _functions().items():
        for owner, name in places:
            setattr(owner, name, around(phase, getattr(owner, name)))


class Lengths:
    """How often a run came into each phase, and how long it stayed, the longest time."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 16 * len(PHASES))
        self._phase, self._since = "start", 0.0

    def watch(self) -> None:
        """Begin to watch this process, from which another one reads :meth:`found`."""
        tell_phases(self._tell)

    def found(self) -> dict[str, tuple[int, float]]:
        each = struct.iter_unpack("qd", self._shared[:])
        return {phase: (int(n), float(s)) for phase, (n, s) in zip(PHASES, each, strict=True)}

    def _tell(self, phase: str) -> None:
        now = time.monotonic()
        if self._since:
            place = 16 * PHASES.index(self._phase)
            count, longest = struct.unpack_from("qd", self._shared, place)
            longest = max(longest, now - self._since)
            struct.pack_into("qd", self._shared, place, count + 1, longest)
        self._phase, self._since = phase, now


class Killer:
    """Kills a process some time after it came into a phase for the n-th time, from outside and
    wherever it is by then."""

    def __init__(self, phase: str, visit: int, seconds: float) -> None:
        self.phase, self.visit, self.seconds = phase, visit, seconds
        self._visits = 0
        self._latest = mmap.mmap(-1, 1)

    @property
    def killed_in(self) -> str:
        """The phase that the process was in at last."""
        return PHASES[self._latest[0]]

    def watch(self) -> None:
        """Begin to watch this process."""
        victim = os.getpid()
        begin, armed = os.pipe()
        if os.fork() == 0:
            os.close(armed)
            if os.read(begin, 1):
                time.sleep(self.seconds)
                os.kill(victim, signal.SIGKILL)
            os._exit(0)
        os.close(begin)
        self._armed = armed
        tell_phases(self._tell)

    def _tell(self, phase: str) -> None:
        self._latest[0] = PHASES.index(phase)
        self._visits += phase == self.phase
        if phase == self.phase and self._visits == self.visit:
            os.write(self._armed, b"!")
