"""Ctrl-C in any step loses none: each step is taken once, and the result is the same."""

import os
import random
import signal
import sys
import time
from collections import Counter
from functools import wraps
from pathlib import Path
from typing import Any

from trial import Outcome, drawn
from world import World, difference, fingerprint, left_over, remove, table


def note_steps(log: Path, interrupted: int | None) -> None:
    """Have this process write every training step into a file, of cells and of first stages, and
    send itself Ctrl-C in the middle of the step of this number."""
    import dstbench_ldm.autoencoder as first_stage
    import dstbench_ldm.first_stage as latents

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
    latents.encode = noted_encode


def interrupts(world: World, span: range, chance: random.Random, deadline: float) -> Outcome:
    """Each cell of a grid is stopped in each of its steps, or those of a span are, and gone
    on with."""
    undisturbed = world.copy("undisturbed")
    done = undisturbed.dstbench("run", "toys.toml", "--jobs", "1", drawing=False)
    assert done.code == 0, done.said
    expected, rows = fingerprint(undisturbed.results), table(undisturbed.results)
    steps = {cell: _steps(_without(undisturbed, cell)) for cell in expected}
    every = [(cell, number + 1) for cell, taken in steps.items() for number in range(len(taken))]
    problems, tried = [], 0
    for cell, number in drawn(every, span, chance):
        if time.monotonic() > deadline:
            break
        tried += 1
        print(f"{tried} steps", end="\r", file=sys.stderr, flush=True)
        trial = _without(undisturbed, cell)
        log = trial.folder / "steps"
        run = ("run", "toys.toml", "--jobs", "1")
        stopped = trial.dstbench(*run, before=_noting(log, number), drawing=False)
        done = trial.dstbench(*run, before=_noting(log), drawing=False)
        taken = Counter(log.read_text().splitlines())
        if stopped.code != 130 or stopped.has_traceback:
            problem = f"exit code {stopped.code}: {stopped.err[-500:]}"
        elif done.code or done.has_traceback:
            problem = f"exit code {done.code}: {done.err[-500:]}"
        elif taken != Counter(steps[cell]):
            problem = f"steps: {taken - Counter(steps[cell])}, {Counter(steps[cell]) - taken}"
        else:
            problem = difference(expected, fingerprint(trial.results))
            problem = problem or ("" if table(trial.results) == rows else "leaderboard")
            problem = problem or ", ".join(left_over(trial.results))
        if problem:
            problems.append(f"step {number} of {cell} ({steps[cell][number - 1]}): {problem}")
        remove(trial.folder)
    tried_of = (
        f"of {len(every)} steps (of cells and of their first stage) with Ctrl-C in the middle"
    )
    return Outcome("interrupts", tried, tried_of, problems)


def _without(finished: World, cell: str) -> World:
    """The world where one cell is yet to be run, and a dense one's first stage to be trained."""
    trial = finished.copy("interrupted")
    remove(trial.results / "cells" / cell)
    if "dense" in cell:
        for path in trial.cache.glob("ldm-*"):
            remove(path)
    return trial


def _steps(trial: World) -> list[str]:
    log = trial.folder / "steps"
    done = trial.dstbench("run", "toys.toml", "--jobs", "1", before=_noting(log), drawing=False)
    assert done.code == 0, done.said
    return log.read_text().splitlines()


def _noting(log: Path, interrupted: int | None = None) -> Any:
    return lambda: note_steps(log, interrupted)
