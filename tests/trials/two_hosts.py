"""Two hosts that share the work, whose link is cut and mended, or one of which dies: every cell is
done once, and nothing waits for ever.

Of the shared folder a third party keeps the locks, as NFS does: GlusterFS, on the near host.
"""

import os
import random
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from hosts import PATIENCE, Host, missing, share, two_hosts, wait_until
from together import note_cells, repeated
from trial import Outcome
from world import Process, World, difference, fingerprint, left_over, remove, table

from dstbench.store.folder import CellFolder

LONGEST = 600
"""Seconds that a run may take, with the time in which the file server still waits for a host."""

RAY = """
[executors.ray]
address = "10.77.0.1:6379"
gpus = 0
shared_folder = false
"""


def shared_folder(world: World, span: range, chance: random.Random, deadline: float) -> Outcome:
    """So many grids, each by a process on either host; the far host's link is cut in the middle of
    a cell, by turns until the file server has given it up, for good, and for a moment."""
    name = "two hosts, one folder"
    if reason := missing("glusterfs", "glusterfsd"):
        return Outcome(name, 0, f"grids: {reason}", [])
    expected, rows = _undisturbed(world)
    problems, grids, lost = [], 0, 0
    while grids < len(span) and time.monotonic() < deadline:
        what = ("cut for long", "dies", "cut for a moment")[grids % 3]
        grids += 1
        trial = world.copy("hosts")
        log = trial.folder / "log"
        with two_hosts() as (near, far):
            brick = trial.folder / "brick"
            share(brick, trial.work / "results", near, far, trial.folder / "logs")
            away = _run(trial, far, log)
            victim = _wait_for_claim(brick, far.name)
            time.sleep(chance.uniform(0, 0.3))
            here = _run(trial, near, log)
            far.link("down")
            if what == "dies":
                far.die()
            else:
                time.sleep(1 if what == "cut for a moment" else 3 * PATIENCE)
                far.link("up")
            ends = [here.wait(LONGEST), away.wait(LONGEST)]
            cut_off = ends[1].code != 0
            lost += cut_off
            problem = ""
            if ends[0].code or any(end.has_traceback for end in ends):
                problem = "; ".join(f"exit code {end.code}: {end.said[-1500:]}" for end in ends)
            if what == "cut for long" and cut_off:  # as it has said
                wait_until(lambda: far.sees(trial.work / "results"))  # noqa: B023
                again = _run(trial, far, log).wait(LONGEST)
                problem = problem or (f"again: {again.said[-1500:]}" if again.code else "")
        results = brick / "toys"
        problem = problem or difference(expected, fingerprint(results))
        problem = problem or ("" if table(results) == rows else "leaderboard")
        problem = problem or ", ".join(left_over(results))
        problem = problem or repeated(log, victim)
        if problem:
            problems.append(f"{problem} ({what})")
        remove(trial.folder)
    tried = f"grids, by a host each end of a link that was cut, or died; {lost} lost their run"
    return Outcome(name, grids, tried, problems)


def ray_cluster(world: World, span: range, chance: random.Random, deadline: float) -> Outcome:
    """So many grids on a Ray cluster of two hosts that share nothing; the far one's link is cut
    when it runs a cell, by turns for good, for 2 s and for a minute."""
    name = "two hosts, Ray"
    reason = missing() or ("" if find_spec("ray") else "the package ray is not installed")
    if reason:
        return Outcome(name, 0, f"grids: {reason}", [])
    expected, rows = _undisturbed(world)
    problems, grids = [], 0
    for number in span:
        if time.monotonic() > deadline:
            break
        seconds = (None, 2, 60)[number % 3]
        what = "dies" if seconds is None else f"cut for {seconds} s"
        grids += 1
        trial = world.copy("hosts")
        trial.file.write_text(trial.file.read_text() + RAY)
        elsewhere = trial.folder / "far"
        elsewhere.mkdir()
        with two_hosts() as (near, far):
            far.do("mount", "--bind", elsewhere, trial.work)  # it sees no results
            _start_node(trial, near, "--head", "--include-dashboard=false",
                        f"--node-ip-address={near.address}")  # fmt: skip
            _start_node(trial, far, f"--address={near.address}:6379",
                        f"--node-ip-address={far.address}")  # fmt: skip
            process = trial.start("run", "toys.toml", "--executor", "ray",
                                  before=near.enter, environment=_cache(trial, near))  # fmt: skip
            cells = trial.folder / f"cache-{far.name}" / "ray"
            wait_until(lambda cells=cells: any(cells.glob("*/cells/*/running.json")), LONGEST)
            time.sleep(chance.uniform(0, 1))
            far.link("down")
            if seconds is None:
                far.die()
            else:
                time.sleep(seconds)
                far.link("up")
            end = process.wait(LONGEST)
            problem = ""
            if end.code or end.has_traceback:
                problem = f"exit code {end.code}: {end.said[-1500:]}"
        problem = problem or difference(expected, fingerprint(trial.results))
        problem = problem or ("" if table(trial.results) == rows else "leaderboard")
        problem = problem or ", ".join(left_over(trial.results))
        if problem:
            problems.append(f"{problem} ({what})")
        remove(trial.folder)
    tried = "grids on a cluster of two hosts, one of which was cut off, or died"
    return Outcome(name, grids, tried, problems)


def _undisturbed(world: World) -> tuple[dict[str, dict[str, object]], list[dict[str, object]]]:
    undisturbed = world.copy("undisturbed")
    done = undisturbed.dstbench("run", "toys.toml", "--jobs", "1")
    assert done.code == 0, done.said
    return fingerprint(undisturbed.results), table(undisturbed.results)


def _cache(trial: World, host: Host) -> dict[str, str]:
    """The variables of a host, which has a cache of its own."""
    return {"DSTBENCH_CACHE": str(trial.folder / f"cache-{host.name}")}


def _run(trial: World, host: Host, log: Path) -> Process:
    def before() -> None:
        host.enter()
        os.chdir(trial.work)
        note_cells(log)

    return trial.start(
        "run", "toys.toml", "--jobs", "1", before=before, environment=_cache(trial, host)
    )


def _wait_for_claim(brick: Path, host: str) -> int:
    """The process that holds a cell on a host, as soon as there is one."""
    found: list[int] = []

    def look() -> bool:
        for path in brick.glob("toys/cells/*"):
            claim = CellFolder(path).claim()
            if claim and claim.host == host:
                found.append(claim.pid)
        return bool(found)

    wait_until(look, LONGEST)
    return found[0]


def _start_node(trial: World, host: Host, *options: str) -> None:
    Path("/tmp/ray").mkdir(exist_ok=True)
    host.do("mount", "-t", "tmpfs", "none", "/tmp/ray")
    command = host.command(
        sys.executable, "-m", "ray.scripts.scripts", "start", *options, "--num-cpus=1",
        f"--object-store-memory={80 * 2**20}", "--disable-usage-stats",
    )  # fmt: skip
    environment = {**os.environ, **trial.environment(), **_cache(trial, host)}
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=LONGEST)
