"""How much faster a grid is in several processes, and whether its leaderboard stays the same.

Runs the quickstart (or another benchmark) from nothing, each time into a folder and a cache of its
own: one process with all threads, one process with as many threads as each of several has, and
several processes. Scores depend on the number of threads in their last bits, which training makes
grow; so the leaderboard of several processes is compared with that of one with as many threads.

    python benchmarks/performance/jobs.py --jobs 2
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from dstbench.grid.reader import load_benchmark
from dstbench.plugins.registry import load_plugins

MEASURED = "training_step|sample_seconds|_time|clock|kernels"
"""The columns that differ from run to run."""


def run(file: Path, results: Path, *options: str) -> tuple[float, pd.DataFrame]:
    """Seconds that the run takes, and its leaderboard without what was measured."""
    command = [sys.executable, "-c", "from dstbench.cli import main; main()", "run", str(file)]
    command += ["--results", str(results), *options]
    start = time.perf_counter()
    subprocess.run(
        command, env=os.environ | {"DSTBENCH_CACHE": str(results / "cache")}, check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    name = load_benchmark(file, load_plugins()).name
    table = pd.read_csv(results / name / "leaderboard.csv")
    return seconds, table.loc[:, ~table.columns.str.contains(MEASURED)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, default=Path("benchmarks/quickstart.toml"))
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()

    cores = os.cpu_count() or 1
    threads = max(1, cores // args.jobs)
    ways = {
        f"--jobs 1 --threads {cores}": ("--jobs", "1", "--threads", str(cores)),
        f"--jobs 1 --threads {threads}": ("--jobs", "1", "--threads", str(threads)),
        f"--jobs {args.jobs} --threads {threads}": (
            "--jobs", str(args.jobs), "--threads", str(threads)
        ),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        ran = {
            name: run(args.file, Path(folder) / str(index), *options)
            for index, (name, options) in enumerate(ways.items())
        }
    seconds = pd.Series({name: each[0] for name, each in ran.items()})
    several = ran[list(ways)[-1]]
    table = pd.DataFrame(
        {
            "minutes": (seconds / 60).round(1),
            f"time of {args.jobs} jobs / its time": (several[0] / seconds).round(2),
            f"leaderboard equal to that of {args.jobs} jobs": [
                each[1].drop(columns="machine").equals(several[1].drop(columns="machine"))
                for each in ran.values()
            ],
        }
    )
    print(table.to_markdown())


if __name__ == "__main__":
    main()
