"""What a cell costs beside its training: thousands of cells that train one step of a toy network.

Runs a grid of them with ``dstbench run``, watches all its processes, kills some of the workers on
the way, and runs it again for those whose processes were killed. What is counted is all that a cell
takes, from the first look at it to its record: making a network of 673 parameters and its
checkpoint, counting its FLOPs, nine samples and their scores included.

    python benchmarks/performance/overhead.py --cells 10000 --executor local --jobs 4
    python benchmarks/performance/overhead.py --cells 10000 --executor ray --jobs 4

It is its own plugin, which writes down when a cell begins and ends.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

from dstbench import hookimpl
from dstbench.cell import Cell
from dstbench.store.store import Store

HERE = Path(__file__).resolve().parent
TOYS = HERE.parents[1] / "tests" / "dstbench"
"""The folder of the module ``toys``."""

LOG = "OVERHEAD_LOG"

BENCHMARK = """
name = "nothing"
[grid]
seeds = {seeds}
sparsities = [0.5]
sparsifiers = ["dense"]
[[tasks]]
model = "toy-net"
dataset = "toy-images"
[training]
steps = 1
batch_size = 1
[evaluation]
extractor = "toy-features"
samples = 9
kid_subsets = 2
resamples = 0
[execution]
measure_seconds = 0
[executors.ray]
cpus = {cpus}
gpus = 0
"""

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def _note(event: str, cell: Cell) -> None:
    with open(os.environ[LOG], "a") as file:
        file.write(f"{event} {cell.id}\n")


@hookimpl
def dstbench_cell_started(cell: Cell) -> None:
    _note("begun", cell)


@hookimpl
def dstbench_cell_finished(cell: Cell) -> None:
    _note("ended", cell)


class Seen(NamedTuple):
    """A run at some moment."""

    cells: int
    """Cells that have ended."""
    clock: float
    cpu: float
    """Seconds of the CPU that all processes of the run have taken, dead ones included."""
    memory: float
    """MiB of memory that ``dstbench run`` has, without the others."""


class _Process(NamedTuple):
    pid: int
    parent: int
    cpu: float
    command: str


def _processes() -> Iterator[_Process]:
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            cpu = sum(map(int, fields[11:15])) / TICK  # its own, and of children that it waited for
            yield _Process(int(path.name), int(fields[1]), cpu, command)


def _family(pid: int) -> list[_Process]:
    """A process, and all that it and its children have started."""
    every = list(_processes())
    known = {pid}
    while more := {each.pid for each in every if each.parent in known} - known:
        known |= more
    return [each for each in every if each.pid in known]


def _is_worker(process: _Process) -> bool:
    return "spawn_main" in process.command or process.command.startswith("ray::run_")


def _memory(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 2**20


def _ended(log: Path) -> int:
    return log.read_text().count("ended ") if log.exists() else 0


def watch(
    command: list[str], environment: dict[str, str], log: Path, kills: list[int], deadline: float
) -> list[Seen]:
    """Run a command to its end, or stop it at the deadline; what was seen of it on the way. A
    worker is killed whenever so many cells have ended as ``kills`` says."""
    seen = []
    with log.with_name("said").open("ab") as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        while process.poll() is None:
            time.sleep(2)
            if time.monotonic() > deadline:
                process.terminate()
                process.wait()
                break
            with suppress(OSError):
                family = _family(process.pid)
                cpu = sum(each.cpu for each in family)
                now = Seen(_ended(log), time.monotonic(), cpu, _memory(process.pid))
                seen.append(now)
                workers = [each.pid for each in family if _is_worker(each)]
                if kills and workers and now.cells >= kills[0]:
                    os.kill(workers[0], signal.SIGKILL)
                    kills.pop(0)
    return seen


def per_cell(seen: list[Seen], cells: int) -> tuple[float, float]:
    """Milliseconds of the CPU and by the clock that a cell takes: medians over tenths of the cells,
    the first and the last left out, so that the start of a process counts in few of them."""
    marks = [next(each for each in seen if each.cells >= cells * n / 10) for n in range(1, 10)]
    parts = [(one, other, other.cells - one.cells) for one, other in pairwise(marks)]
    return (
        median(1000 * (other.cpu - one.cpu) / n for one, other, n in parts if n),
        median(1000 * (other.clock - one.clock) / n for one, other, n in parts if n),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--executor", choices=["local", "ray"], default="local")
    parser.add_argument("--jobs", type=int, default=4, help="cells at a time")
    parser.add_argument("--kills", type=int, default=2, help="workers killed on the way")
    parser.add_argument("--minutes", type=float, default=60, help="at most; what is left is left")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("toys", "overhead"):
            info = folder / f"{name}-1.0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n")
            (info / "entry_points.txt").write_text(f"[dstbench]\n{name} = {name}\n")
        file, log = folder / "nothing.toml", folder / "log"
        cpus = (os.cpu_count() or 1) / args.jobs
        file.write_text(BENCHMARK.format(seeds=list(range(args.cells)), cpus=cpus))
        path = os.pathsep.join(map(str, (folder, HERE, TOYS, os.environ.get("PYTHONPATH", ""))))
        environment = {
            **os.environ,
            "PYTHONPATH": path,
            "DSTBENCH_CACHE": str(folder / "cache"),
            LOG: str(log),
        }
        start = [sys.executable, "-c", "from dstbench.cli import main; main()"]
        command = [*start, "run", str(file), "--results", str(folder), "--executor", args.executor]
        if args.executor == "local":
            command += ["--jobs", str(args.jobs)]
        kills = [args.cells * (n + 1) // (args.kills + 1) for n in range(args.kills)]
        deadline = time.monotonic() + 60 * args.minutes
        seen = watch(command, environment, log, kills, deadline)
        reached = _ended(log)
        if reached < 20:
            sys.exit(log.with_name("said").read_text()[-2000:])
        again = watch(command, environment, log, [], deadline)
        events = Counter(log.read_text().splitlines())
        ended = [n for event, n in events.items() if event.startswith("ended")]
        begun = [n for event, n in events.items() if event.startswith("begun")]
        store = Store(folder / "nothing")
        done = sum(record.status == "done" for record in store.records())
        cpu, clock = per_cell(seen, reached)
        print(
            "| executor | cells | at a time | ms of the CPU per cell | ms by the clock per cell "
            "| MiB of `dstbench run` at 10 %, 50 %, 90 % | workers killed | done | done twice "
            "| begun twice | load |\n|---|" + "---:|" * 10
        )
        sights = [next(s for s in seen if s.cells >= part * reached) for part in (0.1, 0.5, 0.9)]
        row = (
            args.executor, f"{args.cells:,}", args.jobs,
            f"{cpu:.1f}", f"{clock:.1f}", ", ".join(f"{each.memory:.0f}" for each in sights),
            args.kills - len(kills), f"{done:,}", sum(n > 1 for n in ended),
            sum(n > 1 for n in begun), f"{os.getloadavg()[0]:.1f}",
        )  # fmt: skip
        print(f"| {' | '.join(map(str, row))} |")
        whole = sum(part[-1].clock - part[0].clock for part in (seen, again) if part)
        print(f"\n{whole / 60:.1f} minutes, the second run and the report included.")


if __name__ == "__main__":
    main()
