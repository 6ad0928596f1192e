"""Every kind of file damaged in turn: healed, or named; no other cell is the worse for it."""

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from moments import Killer
from trial import Outcome
from world import NOBODY, World, difference, fingerprint, remove

CELL = "ldm-toy-images-leftmost"
"""The cell whose files are damaged, by the beginning of its id."""

OF_CELL = (
    "record.json",
    "cell.json",
    "denoiser.safetensors",
    "samples.npy",
    "samples.png",
    "reals.npy",
    "neighbours.npy",
    "history.csv",
    "topology.csv",
    "lock",
    "running.json",
)
OF_RESULTS = ("layout.json", "written.json", "leaderboard.md", "report.html", "samples.png")
OF_CACHE = (
    "features-*/features.safetensors",
    "features-*/checksums.json",
    "features-*/key.json",
    "floors-*/floors.json",
    "ldm-first-stage-*/autoencoder/*.safetensors",
    "ldm-first-stage-*/autoencoder/config.json",
    "ldm-latents-*/train",
    "ldm-latents-*/facts.json",
    "ldm-latents-*.lock",
)
CHECKPOINTS = ("checkpoint.pt", "checkpoint.previous.pt", "history.csv", "topology.csv")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[len(content) // 2] ^= 1
    path.write_bytes(content)


def folder(path: Path) -> None:
    remove(path)
    path.mkdir()


def pipe(path: Path) -> None:
    remove(path)
    os.mkfifo(path)


HARMS: dict[str, Callable[[Path], object]] = {
    "a byte flipped": flip,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path: path.write_bytes(b""),
    "a folder in its place": folder,
    "a pipe in its place": pipe,
    "no permission": lambda path: path.chmod(0),
}


class Case(NamedTuple):
    kind: str
    """Where the file is: ``cell``, ``results``, ``cache``, ``checkpoint`` or ``benchmark``."""
    file: str
    harm: str


def cases() -> Iterator[Case]:
    files = {
        "cell": OF_CELL,
        "results": OF_RESULTS,
        "cache": OF_CACHE,
        "checkpoint": CHECKPOINTS,
        "benchmark": ("toys.toml",),
    }
    for kind, names in files.items():
        for name in names:
            for harm in HARMS:
                yield Case(kind, name, harm)


CASES = list(cases())


def damage(world: World, size: int, chance: random.Random, deadline: float) -> Outcome:
    """Each kind of file, damaged in each way, or as many as ``size`` and the time allow."""
    finished, begun = world.copy("finished"), world.copy("begun")
    done = finished.dstbench("run", "toys.toml", "--jobs", "1")
    assert done.code == 0, done.said
    expected = fingerprint(finished.results)
    cell = next(name for name in expected if name.startswith(CELL))
    # Killed while it writes its third checkpoint, the last cell has two.
    killer = Killer("checkpoint writing", 12, 0)
    done = begun.dstbench("run", "toys.toml", "--jobs", "1", before=killer.watch)
    assert done.code == -9, done.said

    problems, tried = [], 0
    for case in chance.sample(CASES, min(size, len(CASES))):
        if time.monotonic() > deadline:
            break
        trial = (begun if case.kind == "checkpoint" else finished).copy("damaged")
        if case.kind == "cache":  # has to be read
            remove(trial.results / "cells" / cell)
        path = _path(case, trial, cell)
        if path is None:
            continue
        tried += 1
        HARMS[case.harm](path)
        user = None
        if case.harm == "no permission" and os.getuid() == 0:
            user = NOBODY
            for each in (trial.folder, *trial.folder.rglob("*")):
                os.chown(each, NOBODY, NOBODY, follow_symlinks=False)
        if problem := _problem(case, trial, cell, path, expected, user):
            problems.append(f"{case.kind}, {case.file}, {case.harm}: {problem}")
        path.chmod(0o755) if path.exists() else None
        remove(trial.folder)
    return Outcome("damage", tried, f"damaged files ({', '.join(HARMS)})", problems)


def _path(case: Case, trial: World, cell: str) -> Path | None:
    if case.kind == "benchmark":
        return trial.file
    if case.kind == "results":
        return trial.results / case.file
    if case.kind == "cache":
        return next(iter(sorted(trial.cache.glob(case.file))), None)
    path = trial.results / "cells" / cell / case.file
    path.touch()  # running.json is there of a process that was killed
    return path


def _problem(
    case: Case,
    trial: World,
    cell: str,
    path: Path,
    expected: dict[str, dict[str, object]],
    user: int | None,
) -> str:
    """What is not as it should be after a run, and what tells of its results."""
    ran = trial.dstbench("run", "toys.toml", "--jobs", "1", user=user)
    told = [ran]
    if case.kind != "benchmark":
        told += [trial.dstbench("status", trial.results, user=user),
                 trial.dstbench("leaderboard", trial.results, "--write", user=user)]  # fmt: skip
    for done in told:
        if done.code < 0:
            return "hangs"
        if done.has_traceback:
            return f"a traceback: {done.said[-600:]}"
    if case.kind == "benchmark":
        named = "toys.toml" in ran.said
        return (
            "" if ran.code == 0 or (ran.code == 2 and named) else f"{ran.code}: {ran.said[-300:]}"
        )
    if told[1].code or told[2].code or "ldm" not in told[2].out:
        return f"the others are not shown: {told[1].said[-300:]} {told[2].said[-300:]}"
    if path.exists() and not path.is_dir():
        path.chmod(0o644)
    try:
        found = fingerprint(trial.results)
    except Exception as error:
        found = {"": {"error": str(error)}}
        if path.name == "record.json":
            remove(path)
            found = fingerprint(trial.results)
    others = {name: parts for name, parts in expected.items() if name != cell}
    of_others = {name: parts for name, parts in found.items() if name != cell}
    if differs := difference(others, of_others):
        return f"another cell: {differs}"
    of_cell, was = found.get(cell, {}), dict(expected[cell])
    for part in (path.name, "losses" if path.name == "history.csv" else path.name):
        # Where nobody has read it, it is as it was left; tests of reading it are elsewhere.
        of_cell.pop(part, None)
        was.pop(part, None)
    differs = difference({cell: was}, {cell: of_cell})
    if differs and path.name not in "".join(done.said for done in told):
        return f"not healed, and not said: {differs}"
    return ""
