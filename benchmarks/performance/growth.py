"""How long a results folder of many finished cells takes to be looked through.

Makes up a folder of finished cells, with numbers that nobody measured, and times ``dstbench run``
with nothing to do, ``dstbench status`` and ``dstbench leaderboard`` on it: each twice, at first
without the index that the folder keeps of its records.

    python benchmarks/performance/growth.py --cells 10000
"""

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from dstbench.cell import DENSE, Cell
from dstbench.grid.expansion import cells
from dstbench.grid.reader import load_benchmark
from dstbench.plugins.registry import load_plugins
from dstbench.records import (
    Counts,
    Environment,
    Measurement,
    Protocol,
    Ratio,
    Record,
    Scores,
    Sizes,
    Times,
    UpdateCost,
)
from dstbench.store.index import FILE
from dstbench.store.store import Store

CELLS_OF_A_SEED = 32

BENCHMARK = """
name = "growth"
[grid]
seeds = {seeds}
sparsities = [0.1, 0.25, 0.5, 0.75, 0.9]
sparsifiers = ["dense", "static", "rigl", "magran"]
[[tasks]]
model = "ldm"
dataset = "digits"
[[tasks]]
model = "chirodiff"
dataset = "digits-strokes"
[models.ldm]
block_out_channels = [32, 64]
attention = [false, true]
layers_per_block = 1
norm_num_groups = 8
[training]
steps = 1000
[evaluation]
extractor = "lenet-digits"
samples = 512
"""

ENVIRONMENT = Environment(
    python="3.11",
    packages=dict.fromkeys(("dstbench", "torch", "diffusers", "fvcore", "numpy"), "1.0"),
    platform="Linux",
    cpu="made up",
    threads=1,
    device="cpu",
    gpu=None,
    git_revision=None,
)


def record(cell: Cell) -> Record:
    """A record such as the cell might leave, the same whenever it is asked for."""
    chance = random.Random(cell.id)
    density = 1 - cell.sparsity
    ratio = Ratio(
        ratio=1.1, low=1.0, high=1.2, clock="wall", wall_ratio=1.1, cpu_ratio=1.1, rounds=12
    )
    return Record(
        cell=cell,
        status="done",
        started="2026-01-01T00:00:00+00:00",
        environment=ENVIRONMENT,
        scores=Scores(
            fid=chance.gauss(20 + 5 * cell.sparsity, 1),
            kid=chance.gauss(0.02, 0.001),
            kid_std=0.001,
            inception_score=chance.gauss(5, 0.1),
            inception_score_std=0.1,
            precision=chance.uniform(0.6, 0.7),
            recall=chance.uniform(0.6, 0.7),
        ),
        protocol=Protocol(
            extractor="lenet-digits",
            weights_hash="0" * 64,
            resize="none",
            samples=512,
            reference=f"{cell.dataset}/train",
            reference_images=1437,
            features=84,
        ),
        counts=Counts(
            parameters=701_345,
            active_parameters=round(701_345 * density),
            sparsifiable=700_000,
            active_sparsifiable=round(700_000 * density),
            mean_active_sparsifiable=700_000 * density,
            inference_flops=16e6 * density,
            dense_inference_flops=16e6,
            sample_flops=50 * 16e6 * density,
            training_flops=1.5e12 * density,
            dense_training_flops=1.5e12,
        ),
        times=Times(training_step=0.05, training=50, sample=0.02),
        measurement=None
        if cell.sparsifier == DENSE
        else Measurement(
            step=ratio, sample=ratio, samples=64, update=UpdateCost(dense_steps=0.4, interval=100),
            kernels="masked", threads=1, load_before=0.5, load_after=0.5,
        ),
        sizes=Sizes(
            state_bytes=11_000_000, dense_state_bytes=11_000_000, model_bytes=2_800_000,
            dense_model_bytes=2_800_000,
        ),
        kernels={"mode": "auto", "thresholds": {f"conv2d {size}": 0.1 for size in range(20)}},
    )  # fmt: skip


def grid(folder: Path, count: int) -> tuple[Path, Sequence[Cell]]:
    """A benchmark file of at least ``count`` cells, and its cells."""
    file = folder / "growth.toml"
    file.write_text(BENCHMARK.format(seeds=list(range(-(-count // CELLS_OF_A_SEED)))))
    return file, cells(load_benchmark(file, load_plugins()))


def fill(results: Path, finished: Sequence[Cell]) -> None:
    """A results folder in which these cells are finished."""
    store = Store(results)
    for cell in finished:
        folder = store.cell(cell)
        folder.request(cell)
        folder.write_record(record(cell))


def seconds(*arguments: str) -> str:
    """What a command takes, its start included: seconds by the clock, and of the CPU."""
    command = [sys.executable, "-c", "from dstbench.cli import main; main()", *arguments]
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return f"{time.perf_counter() - start:.1f} ({cpu:.1f} of CPU)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="where to make it, and leave it")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        file, finished = grid(folder, args.cells)
        results = folder / "growth"
        if not results.exists():
            fill(results, finished)
        commands = {
            "run, with nothing to do": ("run", str(file), "--results", str(folder)),
            "status": ("status", str(results)),
            "leaderboard": ("leaderboard", str(results)),
        }
        print("| command | seconds, first | seconds, again |\n|---|---:|---:|")
        for name, arguments in commands.items():
            (results / FILE).unlink(missing_ok=True)
            print(f"| {name} | {seconds(*arguments)} | {seconds(*arguments)} |", flush=True)
        print(f"\n{len(finished):,} cells; load of the machine {os.getloadavg()[0]:.1f}.")


if __name__ == "__main__":
    main()
