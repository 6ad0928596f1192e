"""Processes that are killed at any moment lose nothing: the result is the same, bit for bit."""

import random
import sys
import time
from collections import Counter

from moments import PHASES, Killer, Lengths
from trial import Outcome
from world import World, difference, fingerprint, left_over, remove, table

CELLS = 4
"""Cells of the grid, in each of which most phases come."""


def kills(world: World, span: range, chance: random.Random, deadline: float) -> Outcome:
    """A grid is killed again and again until it gets to its end, then another, until there were
    so many kills, spread over all phases."""
    undisturbed, lengths = world.copy("undisturbed"), Lengths()
    done = undisturbed.dstbench("run", "toys.toml", "--jobs", "1", before=lengths.watch)
    assert done.code == 0, done.said
    found = lengths.found()
    expected, rows = fingerprint(undisturbed.results), table(undisturbed.results)

    killed: Counter[str] = Counter()
    grids, problems = 0, []
    while killed.total() < len(span) and time.monotonic() < deadline:
        grids += 1
        trial = world.copy("killed")
        story = []
        while killed.total() < len(span) and time.monotonic() < deadline:
            least = min(killed[phase] for phase in PHASES)
            phase = chance.choice([each for each in PHASES if killed[each] == least])
            visits, longest = found[phase]
            visit = chance.randint(1, max(1, visits // CELLS))
            # Most visits are shorter than the longest; those of what is cached by now are short.
            seconds = longest * 10 ** chance.uniform(-3, 0)
            killer = Killer(phase, visit, seconds)
            done = trial.dstbench("run", "toys.toml", "--jobs", "1", before=killer.watch)
            if done.code != -9:
                break
            killed[killer.killed_in] += 1
            story.append((phase, killer.visit, round(killer.seconds, 4), killer.killed_in))
            print(f"{killed.total()} kills", end="\r", file=sys.stderr, flush=True)
        else:
            done = trial.dstbench("run", "toys.toml", "--jobs", "1")
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
    tried = f"SIGKILLs, over {grids} grids of {CELLS} cells ({told})"
    return Outcome("kills", killed.total(), tried, problems)
