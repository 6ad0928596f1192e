"""A small world to try dstbench in: a toy grid, a cache, and the command line in forked processes.

``dstbench`` takes seconds to be imported. A trial starts it hundreds of times, so each start is a
fork of this process, which has imported all that the command line needs and run none of it.
"""

import importlib
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOYS = Path(__file__).resolve().parents[1] / "dstbench"
"""The folder of the module ``toys``."""

BENCHMARK = (TOYS / "toys.toml").read_text().replace("every = 5", "every = 4\nlog_every = 5")
BENCHMARK += """\
[[tasks]]
model = "ldm"
dataset = "toy-images"
[models.ldm]
block_out_channels = [8, 16]
attention = [false, true]
layers_per_block = 1
attention_head_dim = 8
norm_num_groups = 4
sampling_steps = 4
[models.ldm.autoencoder]
codes = 16
block_out_channels = [8, 16]
layers_per_block = 1
norm_num_groups = 4
steps = 10
[execution]
measure_seconds = 0
"""

NOBODY = 65534
"""A user without rights."""

SECONDS = 400
"""Time that a command may take, beside whatever else runs; what takes longer hangs."""


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    """Exit code; negative: the number of the signal that killed it."""
    out: str
    err: str

    @property
    def said(self) -> str:
        return self.out + self.err

    @property
    def has_traceback(self) -> bool:
        return "Traceback (most recent call last)" in self.said


class World:
    """A folder with a benchmark file, its results, a cache, and the toys as a distribution."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.file = self.work / "toys.toml"
        self.results = self.work / "results" / "toys"
        self.cache = folder / "cache"
        self.packages = folder / "site-packages"
        for each in (self.work, self.packages):
            each.mkdir(parents=True, exist_ok=True)
        if not self.file.exists():
            self.file.write_text(BENCHMARK)
        self._install("toys")

    def _install(self, name: str) -> None:
        info = self.packages / f"{name}-1.0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[dstbench]\n{name} = {name}\n")

    def copy(self, name: str) -> "World":
        """This world as it is, in a folder beside it."""
        folder = self.folder.with_name(name)
        remove(folder)
        shutil.copytree(self.folder, folder, symlinks=True)
        return World(folder)

    def environment(self) -> dict[str, str]:
        return {
            "DSTBENCH_CACHE": str(self.cache),
            "HOME": str(self.folder),
            "PYTHONPATH": os.pathsep.join([str(self.packages), *sys.path]),
            "OMP_NUM_THREADS": "1",
        }

    def dstbench(self, *arguments: str | Path, **options: Any) -> Done:
        """Run a command in the folder ``work``; the options are those of :meth:`start`."""
        return self.start(*arguments, **options).wait()

    def start(
        self,
        *arguments: str | Path,
        before: Callable[[], object] | None = None,
        user: int | None = None,
        environment: Mapping[str, str] | None = None,
        drawing: bool = True,
    ) -> "Process":
        """Start a command in a process group of its own.

        Args:
            before: what is done first in the new process.
            user: number of the user that runs it.
            drawing: whether reports have charts, which take longer than the cells of a toy.
        """
        streams = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115
        pid = os.fork()
        if pid:
            return Process(pid, *streams)
        code = 70
        try:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for number, stream in enumerate(streams, start=1):
                os.dup2(stream.fileno(), number)
            os.chdir(self.work)
            os.environ.update(self.environment() | dict(environment or {}))
            sys.path.insert(0, str(self.packages))
            importlib.invalidate_caches()
            sys.argv = ["dstbench", *map(str, arguments)]
            for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(each, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if user is not None:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
            if not drawing:
                leave_out_charts()
            if before:
                before()
            from dstbench.cli import main

            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
            code = 1
        finally:
            with suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)


def leave_out_charts() -> None:
    """Let reports of this process be without charts."""
    from dstbench.report import page, plot, trade_off

    plot.fid_vs_sparsity = lambda *_: None  # type: ignore[assignment]
    trade_off.fid_vs_cost = lambda *_: None  # type: ignore[assignment]
    page.write_page = lambda _, path, *__: path.write_text("no charts")  # type: ignore[assignment]


class Process:
    """A command that is running."""

    def __init__(self, pid: int, out: Any, err: Any) -> None:
        self.pid = pid
        self._streams = out, err

    def wait(self, seconds: float = SECONDS) -> Done:
        """The end of the command; one that takes longer is killed, and has code -9."""
        deadline = time.monotonic() + seconds
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                self.signal(signal.SIGABRT if os.environ.get("TRIALS_STACKS") else signal.SIGKILL)
                _, status = os.waitpid(self.pid, 0)
                break
            time.sleep(0.005)
        with suppress(ProcessLookupError):  # what it has started
            os.killpg(self.pid, signal.SIGKILL)
        texts = []
        for stream in self._streams:
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
            stream.close()
        return Done(os.waitstatus_to_exitcode(status), *texts)

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


def remove(path: Path) -> None:
    """Remove whatever is there, which may have been made hard to remove."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def new_world() -> Iterator[World]:
    """A world in a temporary folder that every user may look into; this process is warm then."""
    folder = Path(tempfile.mkdtemp(prefix="dstbench-trials-"))
    folder.chmod(0o755)
    os.environ.update({"OMP_NUM_THREADS": "1", "MPLCONFIGDIR": str(folder / "matplotlib")})
    sys.path.insert(0, str(TOYS))
    try:
        world = World(folder / "world")
        warm_up(world)
        yield world
    finally:
        remove(folder)


def warm_up(world: World) -> None:
    """Import here what a run imports, and run nothing of it."""
    first = world.copy("first")
    listed = first.folder / "modules"
    end = os._exit

    def list_modules(code: int) -> None:
        listed.write_text("\n".join(sys.modules))
        end(code)

    def at_the_end() -> None:
        os._exit = list_modules  # type: ignore[assignment]

    done = first.dstbench("run", first.file, "--jobs", "1", before=at_the_end)
    if done.code:
        raise SystemExit(f"the toys do not run: {done.said}")
    for name in listed.read_text().splitlines():
        if name != "__main__":
            with suppress(Exception):
                importlib.import_module(name)
    remove(first.folder)


def cells(results: Path) -> dict[str, Path]:
    """The folders of cells by what they are, such as ``ldm leftmost``."""
    return {path.name: path for path in sorted((results / "cells").iterdir())}


def fingerprint(results: Path) -> dict[str, dict[str, object]]:
    """All of each cell's result that does not depend on when it was made, by the cell's name."""
    from dstbench.store.folder import CellFolder

    found: dict[str, dict[str, object]] = {}
    for name, path in cells(results).items():
        folder = CellFolder(path)
        record = folder.record()
        if record is None:
            found[name] = {"record": None}
            continue
        told = record.model_dump(mode="json")
        for timed in ("started", "environment", "times", "measurement", "peak_memory"):
            told.pop(timed, None)
        files: dict[str, object] = {
            each.name: each.read_bytes()
            for each in (folder.denoiser, folder.sampling, folder.samples, folder.reals,
                         folder.neighbours, folder.topology, folder.sheet)
            if each.is_file()
        }  # fmt: skip
        if folder.history.is_file():
            rows = folder.history.read_text().splitlines()
            files["losses"] = [row.split(",")[:2] for row in rows]
        found[name] = {"record": told, **files}
    return found


def difference(one: dict[str, dict[str, object]], other: dict[str, dict[str, object]]) -> str:
    """What differs between two fingerprints, in words; empty: nothing."""
    if one.keys() != other.keys():
        return f"cells: {sorted(one.keys() ^ other.keys())}"
    for name, parts in one.items():
        for part in sorted({*parts, *other[name]}):
            if parts.get(part) != other[name].get(part):
                return f"{part} of {name}"
    return ""


_TIME = re.compile(r"seconds|time|_s\b|started|took|cpu|load")


def table(results: Path) -> list[dict[str, object]]:
    """The leaderboard, less the columns that hold times."""
    import csv

    with (results / "leaderboard.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if not _TIME.search(k)} for row in rows]


def left_over(results: Path) -> list[str]:
    """Files in cells that should be gone when they are done."""
    names = ("*.partial", "checkpoint*", "timeout.txt", "running.json")
    return [str(p) for name in names for p in (results / "cells").glob(f"*/{name}")]
