"""Ctrl-C in any step loses none: each step is taken once, and the result is the same."""

import os
import random
import signal
import time
from collections import Counter
from functools import wraps
from pathlib import Path
from typing import Any

from trial import Outcome
from world import World, difference, fingerprint, left_over, remove, table


def note_steps(log: Path, interrupted: int | None) -> None:
    """Have this process write every training step into a file, of cells and of first stages, and
    send itself Ctrl-C in the middle of the step of this number."""
    import dstbench_ldm.autoencoder as first_stage

    from dstbench.execution.training import Trainer

    taken = 0

    def note(step: str) -> None:
        nonlocal taken
        taken += 1
        with log.open("a") as file:
            file.write(f"{step}\n")
        if taken == interrupted:
            os.kill(os.getpid(), signal.SIGINT)

    backward, pixels, encode = Trainer._backward, first_stage._pixels, first_stage.encode
    encoding = False

    @wraps(backward)
    def noted_backward(self: Any) -> Any:
        loss = backward(self)
        network = sum(weight.numel() for weight in self.denoiser.parameters())
        note(f"{network} {self.sparsifier is not None} {self.step}")
        return loss

    @wraps(encode)
    def noted_encode(*arguments: Any, **named: Any) -> Any:
        nonlocal encoding
        encoding = True
        try:
            return encode(*arguments, **named)
        finally:
            encoding = False

    @wraps(pixels)
    def noted_pixels(*arguments: Any) -> Any:
        if not encoding:
            note("first stage")
        return pixels(*arguments)

    Trainer._backward = noted_backward  # type: ignore[method-assign]
    first_stage._pixels, first_stage.encode = noted_pixels, noted_encode


def interrupts(world: World, size: int, chance: random.Random, deadline: float) -> Outcome:
    """A grid is stopped in each of its steps, or in ``size`` of them, and gone on with."""
    undisturbed = world.copy("undisturbed")
    log = undisturbed.folder / "steps"
    done = undisturbed.dstbench("run", "toys.toml", "--jobs", "1", before=_noting(log))
    assert done.code == 0, done.said
    expected, rows = fingerprint(undisturbed.results), table(undisturbed.results)
    steps = log.read_text().splitlines()
    numbers = chance.sample(range(1, len(steps) + 1), min(size, len(steps)))
    problems, tried = [], 0
    for number in numbers:
        if time.monotonic() > deadline:
            break
        tried += 1
        trial = world.copy("interrupted")
        log = trial.folder / "steps"
        stopped = trial.dstbench("run", "toys.toml", "--jobs", "1", before=_noting(log, number))
        done = trial.dstbench("run", "toys.toml", "--jobs", "1", before=_noting(log))
        taken = log.read_text().splitlines()
        if stopped.code != 130 or stopped.has_traceback:
            problem = f"exit code {stopped.code}: {stopped.err[-500:]}"
        elif done.code or done.has_traceback:
            problem = f"exit code {done.code}: {done.err[-500:]}"
        elif Counter(taken) != Counter(steps):
            problem = f"steps: {Counter(taken) - Counter(steps)}, {Counter(steps) - Counter(taken)}"
        else:
            problem = difference(expected, fingerprint(trial.results))
            problem = problem or ("" if table(trial.results) == rows else "leaderboard")
            problem = problem or ", ".join(left_over(trial.results))
        if problem:
            problems.append(f"step {number} ({steps[number - 1]}): {problem}")
        remove(trial.folder)
    tried_of = (
        f"of {len(steps)} steps (of cells and of their first stage) with Ctrl-C in the middle"
    )
    return Outcome("interrupts", tried, tried_of, problems)


def _noting(log: Path, interrupted: int | None = None) -> Any:
    return lambda: note_steps(log, interrupted)
