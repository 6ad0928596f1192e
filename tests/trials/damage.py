"""Every kind of file damaged in turn: healed, or named; no other cell is the worse for it."""

import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from moments import Killer
from trial import Outcome, drawn
from world import NOBODY, World, cells, difference, fingerprint, remove, warm_up

OF_CELL = (
    "record.json",
    "cell.json",
    "denoiser.safetensors",
    "sampling.safetensors",
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
OF_STROKES = ("vmnist-*/sketches.safetensors", "vmnist-*/checksums.json", "vmnist-*/key.json")
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
    """Where the file is: ``cell``, ``results``, ``cache``, ``strokes`` (in the cache),
    ``checkpoint``, ``index`` (of records) or ``benchmark``."""
    file: str
    harm: str


def cases() -> Iterator[Case]:
    files = {
        "cell": OF_CELL,
        "results": OF_RESULTS,
        "cache": OF_CACHE,
        "strokes": OF_STROKES,
        "checkpoint": CHECKPOINTS,
        "index": ("records.index",),
        "benchmark": ("toys.toml",),
    }
    for kind, names in files.items():
        for name in names:
            for harm in HARMS:
                yield Case(kind, name, harm)


CASES = list(cases())


STROKES = """\
name = "toys"
[grid]
seeds = [0]
sparsities = [0.5]
sparsifiers = ["dense", "leftmost"]
[[tasks]]
model = "chirodiff"
dataset = "vmnist"
[datasets.vmnist]
path = "strokes.npz"
image_size = 8
[models.chirodiff]
layers = 1
units = 8
diffusion_steps = 24
sampling_steps = 4
[training]
steps = 4
batch_size = 6
[evaluation]
extractor = "toy-features"
samples = 9
kid_subsets = 2
[execution]
measure_seconds = 0
"""
"""A benchmark of drawings."""

RUN = ("run", "toys.toml", "--jobs", "1")


class Scene(NamedTuple):
    """A world that is damaged, and what is there if it is not."""

    world: World
    cell: str
    """The cell whose files are damaged."""
    expected: dict[str, dict[str, object]]


def _scene(world: World) -> Scene:
    done = world.dstbench(*RUN, drawing=False)
    assert done.code == 0, done.said
    expected = fingerprint(world.results)
    return Scene(
        world, max(expected, key=lambda name: ("leftmost" in name, name[0] != "t")), expected
    )


def _of_strokes(world: World) -> World:
    import numpy as np

    made = world.copy("strokes")
    made.file.write_text(STROKES)
    points = np.random.default_rng(0).normal(size=(40, 6, 3))
    points[:, :, 2] = [0, 0, 1, 0, 0, 1]
    np.savez(made.work / "strokes.npz", points=points.reshape(-1, 3), lengths=np.full(40, 6))
    warm_up(made)  # another user may not be able to import more
    return made


def _indexed(world: World) -> World:
    """Results of so many cells that an index is kept of their records."""
    from dstbench.store.folder import CellFolder
    from dstbench.store.index import FILE, FRESH, WORTH_IT

    made = world.copy("indexed")
    record = CellFolder(next(iter(cells(made.results).values()))).record()
    assert record is not None
    for seed in range(1, WORTH_IT + 1):
        cell = record.cell.model_copy(update={"seed": seed})
        folder = CellFolder(made.results / "cells" / cell.id)
        folder.path.mkdir()
        folder.write_record(record.model_copy(update={"cell": cell}))
    time.sleep(FRESH + 1)
    made.dstbench("status", made.results)
    assert (made.results / FILE).exists()
    return made


def damage(world: World, span: range, chance: random.Random, deadline: float) -> Outcome:
    """Each kind of file, damaged in each way, or as many as the span and the time allow."""
    chosen = drawn(CASES, span, chance)
    kinds = {case.kind for case in chosen}
    finished, begun = _scene(world.copy("finished")), world.copy("begun")
    # Killed while it writes its third checkpoint, the last cell has two.
    killer = Killer("checkpoint writing", 12, 0)
    done = begun.dstbench(*RUN, before=killer.watch)
    assert done.code == -9, done.said
    scenes = dict.fromkeys(("cell", "results", "cache", "benchmark"), finished)
    scenes["checkpoint"] = finished._replace(world=begun)
    if "strokes" in kinds:
        scenes["strokes"] = _scene(_of_strokes(world))
    if "index" in kinds:
        scenes["index"] = finished._replace(world=_indexed(finished.world))

    problems, tried = [], 0
    for case in chosen:
        if time.monotonic() > deadline:
            break
        tried += 1
        print(f"{tried} files", end="\r", file=sys.stderr, flush=True)
        scene = scenes[case.kind]
        trial = scene.world.copy("damaged")
        if case.kind in ("cache", "strokes"):  # has to be read
            remove(trial.results / "cells" / scene.cell)
        path = _path(case, trial, scene.cell)
        HARMS[case.harm](path)
        user = None
        if case.harm == "no permission" and os.getuid() == 0:
            user = NOBODY
            for each in (trial.folder, *trial.folder.rglob("*")):
                os.chown(each, NOBODY, NOBODY, follow_symlinks=False)
        check = _index_problem if case.kind == "index" else _problem
        if problem := check(case, trial, scene, path, user):
            problems.append(f"{case.kind}, {case.file}, {case.harm}: {problem}")
        path.chmod(0o755) if path.exists() else None
        remove(trial.folder)
    return Outcome("damage", tried, f"damaged files ({', '.join(HARMS)})", problems)


def _index_problem(case: Case, trial: World, scene: Scene, path: Path, user: int | None) -> str:
    """What is not as it should be in what is told of results whose index is damaged."""
    whole = scene.world
    for command in ("status", "leaderboard"):
        told = trial.dstbench(command, trial.results, user=user)
        expected = whole.dstbench(command, whole.results)
        if told.code or told.has_traceback or told.out != expected.out:
            return f"{command}: {told.code}, {told.said[-600:]}"
        remove(path)
        shutil.copy(whole.results / case.file, path)
        HARMS[case.harm](path)
    return ""


def _path(case: Case, trial: World, cell: str) -> Path:
    if case.kind == "benchmark":
        return trial.file
    if case.kind in ("results", "index"):
        return trial.results / case.file
    if case.kind in ("cache", "strokes"):
        return min(trial.cache.glob(case.file))
    path = trial.results / "cells" / cell / case.file
    path.touch()  # running.json is there of a process that was killed
    return path


def _problem(case: Case, trial: World, scene: Scene, path: Path, user: int | None) -> str:
    """What is not as it should be after a run, and what tells of its results."""
    cell, expected, drawing = scene.cell, scene.expected, case.kind == "results"
    ran = trial.dstbench(*RUN, user=user, drawing=drawing)
    told = [ran]
    if case.kind != "benchmark":
        told += [trial.dstbench("status", trial.results, user=user),
                 trial.dstbench("leaderboard", trial.results, "--write", user=user,
                                drawing=drawing)]  # fmt: skip
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
    unwritten = told[2].code == 2 and path.name in told[2].err
    if told[1].code or (told[2].code and not unwritten) or "| dense" not in told[2].out:
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
        return f"not healed, and not said: {differs}; {ran.code}: {ran.said[-300:]}"
    return ""
