"""Trials of what dstbench promises in bad times; each ends with a line of what it has tried.

    python tests/trials/run.py                   all of them, in full
    python tests/trials/run.py kills --size 50   one of them, smaller

Exit code 1 where something was not as it should be.
"""

import argparse
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from kills import kills
from world import new_world

TRIALS = {"kills": (kills, 200)}
"""Each trial, and its size in full."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "trials", nargs="*", metavar="TRIAL", help=f"of {', '.join(TRIALS)}; all by default"
    )
    parser.add_argument("--size", type=int, help="how much of each is tried")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60, help="after which none begins anew")
    args = parser.parse_args()
    bad = False
    with new_world() as world:
        print("| trial | tried | not as it should be | minutes |\n|---|---|---:|---:|", flush=True)
        for name in args.trials or TRIALS:
            trial, size = TRIALS[name]
            begun = time.monotonic()
            outcome = trial(
                world,
                args.size or size,
                random.Random(f"{name} {args.seed}"),
                begun + 60 * args.minutes,
            )
            took = (time.monotonic() - begun) / 60
            print(
                f"| {name} | {outcome.count} {outcome.tried} | {len(outcome.problems)} | {took:.1f} |",
                flush=True,
            )
            for problem in outcome.problems:
                print(f"PROBLEM: {problem}", flush=True)
            bad = bad or bool(outcome.problems)
    sys.exit(bad)


if __name__ == "__main__":
    main()
