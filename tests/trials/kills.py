"""Processes that are killed at any moment lose nothing: the result is the same, bit for bit."""

import json
import random
import sys
import time
from collections import Counter

from moments import PHASES, count_into, kill_at
from trial import Outcome
from world import World, difference, fingerprint, left_over, remove, table

CELLS = 4
"""Cells of the grid, in each of which most phases come."""

ONCE = ("start", "first stage", "latents")
"""Phases that come once in the grid."""

LONGEST = 0.03
"""Seconds at most between the moment and the kill; half of the kills have none."""


def kills(world: World, size: int, chance: random.Random, deadline: float) -> Outcome:
    """A grid is killed again and again until it gets to its end, then another, until there were
    ``size`` kills, evenly spread over all phases."""
    undisturbed = world.copy("undisturbed")
    counted = undisturbed.folder / "moments.json"
    done = undisturbed.dstbench("run", world.file, "--jobs", "1", before=count_into(counted))
    assert done.code == 0, done.said
    moments = json.loads(counted.read_text())
    expected, rows = fingerprint(undisturbed.results), table(undisturbed.results)

    killed: Counter[str] = Counter()
    grids, problems = 0, []
    while killed.total() < size and time.monotonic() < deadline:
        grids += 1
        trial = world.copy("killed")
        story = []
        while True:
            least = min(killed[phase] for phase in PHASES)
            phase = chance.choice([each for each in PHASES if killed[each] == least])
            number = chance.randint(1, moments[phase] // (1 if phase in ONCE else CELLS))
            after = chance.choice([0, chance.uniform(0, LONGEST)])
            killer = kill_at(phase, number, after)
            done = trial.dstbench(
                "run", trial.file, "--jobs", "1", before=killer if killed.total() < size else None
            )
            if done.code != -9:
                break
            killed[phase] += 1
            print(f"{killed.total()} kills", end="\r", file=sys.stderr, flush=True)
            story.append((phase, number, round(after, 4)))
        if done.code or done.has_traceback:
            problem = f"exit code {done.code}: {done.err[-1000:]}"
        else:
            problem = difference(expected, fingerprint(trial.results))
            problem = problem or ("" if table(trial.results) == rows else "leaderboard")
            problem = problem or ", ".join(left_over(trial.results))
        if problem:
            problems.append(f"{problem}\n    after {story}")
        remove(trial.folder)
    told = ", ".join(f"{phase} {killed[phase]}" for phase in PHASES)
    return Outcome(
        "kills",
        killed.total(),
        f"SIGKILLs, over {grids} grids of {CELLS} cells ({told}; "
        f"at one of {sum(moments.values()):,} calls, or up to {LONGEST} s after it)",
        problems,
    )
