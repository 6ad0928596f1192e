"""Trials of what dstbench promises in bad times; each ends with a line of what it has tried.

    python tests/trials/run.py                   all of them, in full
    python tests/trials/run.py --short           a small part of each
    python tests/trials/run.py kills --size 50   one of them, smaller

Exit code 1 where something was not as it should be.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

import bad_inputs
import damage
import hostile
import interrupts
import kills
import together
import two_hosts
from trial import Outcome
from world import World, new_world


class Trial(NamedTuple):
    """A trial, and how much of it there is in full and in short."""

    run: Callable[[World, range, random.Random, float], Outcome]
    size: int
    short: int


TRIALS = {
    "kills": Trial(kills.kills, 200, 3),
    "together": Trial(together.together, 12, 1),
    "interrupts": Trial(interrupts.interrupts, 100, 1),
    "damage": Trial(damage.damage, len(damage.CASES), 3),
    "hostile": Trial(hostile.hostile, len(hostile.CASES), 4),
    "hosts": Trial(two_hosts.shared_folder, 6, 1),
    "hosts-ray": Trial(two_hosts.ray_cluster, 3, 0),
    "bad-inputs": Trial(bad_inputs.bad_inputs, len(bad_inputs.CASES), 20),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("trials", nargs="*", metavar="TRIAL", help=f"of {', '.join(TRIALS)}")
    parser.add_argument("--short", action="store_true", help="a small part of each")
    parser.add_argument("--size", type=int, help="how much of each is tried")
    parser.add_argument("--skip", type=int, default=0, help="of what is drawn, the first so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60, help="of each, at most")
    args = parser.parse_args()
    failed = False
    with new_world() as world:
        print("| trial | tried | not as it should be | minutes |\n|---|---|---:|---:|", flush=True)
        for name in args.trials or TRIALS:
            trial, begun = TRIALS[name], time.monotonic()
            size = args.size or (trial.short if args.short else trial.size)
            if not size:  # too long for the suite
                continue
            chance = random.Random(f"{name} {args.seed}")
            span = range(args.skip, args.skip + size)
            outcome = trial.run(world, span, chance, begun + 60 * args.minutes)
            minutes, bad = (time.monotonic() - begun) / 60, outcome.problems
            tried = f"{outcome.count} {outcome.tried}"
            print(f"| {outcome.name} | {tried} | {len(bad)} | {minutes:.1f} |", flush=True)
            for problem in bad:
                print(f"PROBLEM: {problem}", flush=True)
            failed = failed or bool(bad)
    sys.exit(failed)


if __name__ == "__main__":
    main()
