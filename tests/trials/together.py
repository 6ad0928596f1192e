"""Several processes on one results folder, of which one is killed: every cell is done once."""

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from moments import PHASES, Killer
from trial import Outcome
from world import World, difference, fingerprint, left_over, remove, table

PROCESSES = 4
LONGEST = 0.3
"""Seconds at most between the beginning of a phase and the kill."""


def note_cells(log: Path) -> None:
    """Have this process write into a file which cells it begins and ends."""
    from dstbench.execution.pipeline import Pipeline
    from dstbench.store.folder import CellFolder

    def note(event: str, cell: str) -> None:
        with log.open("a") as file:
            file.write(f"{event} {cell} {os.getpid()}\n")

    run, write = Pipeline.run, CellFolder.write_record

    @wraps(run)
    def noted_run(self: Any, cell: Any, *rest: Any) -> Any:
        note("begun", cell.id)
        return run(self, cell, *rest)

    @wraps(write)
    def noted_write(self: Any, record: Any) -> None:
        write(self, record)
        note("ended", self.path.name)

    Pipeline.run, CellFolder.write_record = noted_run, noted_write  # type: ignore[method-assign]


def together(world: World, span: range, chance: random.Random, deadline: float) -> Outcome:
    """Grids, each run by four processes at once."""
    undisturbed = world.copy("undisturbed")
    done = undisturbed.dstbench("run", "toys.toml", "--jobs", "1")
    assert done.code == 0, done.said
    expected, rows = fingerprint(undisturbed.results), table(undisturbed.results)
    problems, grids, killed = [], 0, 0
    while grids < len(span) and time.monotonic() < deadline:
        grids += 1
        trial = world.copy("shared")
        log = trial.folder / "log"
        killer = Killer(chance.choice(PHASES), 1, chance.uniform(0, LONGEST))

        def begin(watch: Callable[[], None] | None, log: Path = log) -> Callable[[], None]:
            def before() -> None:
                note_cells(log)
                if watch:
                    watch()

            return before

        watches = [killer.watch, *[None] * (PROCESSES - 1)]
        processes = [
            trial.start("run", "toys.toml", "--jobs", "1", before=begin(watch)) for watch in watches
        ]
        ends = [process.wait() for process in processes]
        victim = processes[0].pid
        killed += ends[0].code == -9
        if any(end.code for end in ends[1:]) or any(end.has_traceback for end in ends):
            problem = "; ".join(f"exit code {end.code}: {end.err[-500:]}" for end in ends)
        else:
            problem = difference(expected, fingerprint(trial.results))
            problem = problem or ("" if table(trial.results) == rows else "leaderboard")
            problem = problem or ", ".join(left_over(trial.results))
            problem = problem or repeated(log, victim if ends[0].code else None)
        if problem:
            problems.append(f"{problem} ({killer.phase}, {killer.seconds:.3f} s)")
        remove(trial.folder)
    tried = f"grids, each by {PROCESSES} processes at once; one of them killed in {killed}"
    return Outcome("together", grids, tried, problems)


def repeated(log: Path, victim: int | None) -> str:
    """What was done more than once, but what the process that was killed had not ended."""
    events = [line.split() for line in log.read_text().splitlines()]
    begun = Counter(cell for event, cell, _ in events if event == "begun")
    ended = Counter(cell for event, cell, _ in events if event == "ended")
    for event, cell, pid in events:
        if event == "begun" and int(pid) == victim:
            begun[cell] -= begun[cell] > 1
    again = [cell for cell, count in (begun | ended).items() if count > 1]
    return f"done more than once: {', '.join(again)}" if again else ""
