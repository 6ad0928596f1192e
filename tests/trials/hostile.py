"""What a stranger may hand over: nothing of it is executed, nothing is written anywhere else."""

import gzip
import json
import os
import pickle
import random
import shutil
import time
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from trial import Outcome, drawn
from world import BENCHMARK, World, remove

LONGEST = 100_000
"""Characters that may be said: tables are, errors are shorter."""

SECONDS = 60
"""Time that a command may take."""

ESCAPE = "\x1b]0;mine\x07\x1b[2J"

IMAGES = """\
name = "images"
[grid]
seeds = [0]
sparsities = [0.5]
sparsifiers = ["dense"]
[[tasks]]
model = "toy-net"
dataset = "image-folder"
[datasets.image-folder]
path = {path}
{more}
[training]
steps = 2
batch_size = 2
[evaluation]
extractor = "toy-features"
samples = 9
"""


class Executed:
    """What, unpickled, leaves a file."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.sentinel),)


class Scene(NamedTuple):
    """A finished grid, and what must not be touched."""

    world: World
    outside: Path
    sentinel: Path

    @property
    def cell(self) -> Path:
        return min((self.world.results / "cells").iterdir())


class Case(NamedTuple):
    name: str
    set_up: Callable[[Scene], object]
    commands: Sequence[Sequence[str]]


LOOK = (("status", "results/toys"), ("leaderboard", "results/toys"), ("run", "toys.toml"))
DRAW = (("leaderboard", "results/toys", "--write"),)
USE = (("sample", "CELL"), ("score", "CELL/../..", "--steps", "2"), ("export", "CELL", "exported"))


def link(name: str, target: str, scene: Scene) -> None:
    """A link in the results folder, ``CELL`` being a cell's, to somewhere else."""
    path = scene.world.results / name.replace("CELL", f"cells/{scene.cell.name}")
    remove(path)
    path.symlink_to(target.replace("OUTSIDE", str(scene.outside)))


def put(name: str, content: bytes, scene: Scene) -> None:
    path = scene.cell / name
    remove(path)
    path.write_bytes(content)


def put_pickle(name: str, scene: Scene) -> None:
    put(name, pickle.dumps(Executed(scene.sentinel)), scene)


def put_array(name: str, scene: Scene) -> None:
    import numpy as np

    np.save(scene.cell / name, np.array([Executed(scene.sentinel)], dtype=object))


def put_checkpoint(scene: Scene) -> None:
    """A checkpoint with code in it and the right checksum, of a cell that is to be run."""
    from dstbench.store.sealed import save_sealed

    remove(scene.cell / "record.json")
    save_sealed({"cell": Executed(scene.sentinel)}, scene.cell / "checkpoint.pt")


def change(scene: Scene, **fields: Any) -> None:
    """Another record of a cell, with the right checksum."""
    from dstbench.records import Record
    from dstbench.store.record_file import record_text

    path = scene.cell / "record.json"
    record = json.loads(path.read_text())
    record.pop("sha256")
    record["cell"] |= fields.pop("cell", {})
    path.write_text(record_text(Record.model_validate(record | fields), {}), encoding="utf-8")


def deep(scene: Scene) -> None:
    put("record.json", b"[" * 100_000, scene)


def bomb(scene: Scene) -> None:
    (scene.world.results / "records.index").write_bytes(gzip.compress(bytes(2**28)))


def renamed(scene: Scene) -> None:
    scene.cell.rename(scene.cell.with_name(f"{ESCAPE}\n=1+1"))


def benchmark(scene: Scene, old: str, new: str) -> None:
    scene.world.file.write_text(BENCHMARK.replace(old, new, 1))


def images(fill: Callable[[Path, Scene], object], more: str, scene: Scene) -> None:
    """A folder of images, or what says it is one."""
    path = scene.world.work / "images"
    place = fill(path, scene) or path
    (scene.world.work / "images.toml").write_text(
        IMAGES.format(path=json.dumps(str(place)), more=more)
    )


def zipped(names: dict[str, bytes], path: Path, scene: Scene) -> Path:
    path = path.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in names.items():
            archive.writestr(name.replace("OUTSIDE", str(scene.outside)), content)
    return path


def zip_bomb(path: Path, scene: Scene) -> Path:
    path = path.with_suffix(".zip")
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.png", "w", force_zip64=True) as file,
    ):
        for _ in range(1500):
            file.write(bytes(2**20))
    return path


def zip_link(path: Path, scene: Scene) -> Path:
    path = path.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        entry = zipfile.ZipInfo("a.png")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    return path


def file_in(name: str, content: bytes, path: Path, scene: Scene) -> None:
    path.mkdir()
    (path / name).write_bytes(content)


def special(make: Callable[[Path], object], path: Path, scene: Scene) -> None:
    path.mkdir()
    make(path / "a.png")


def huge(path: Path, scene: Scene) -> None:
    """A small file of 400 million pixels."""
    from PIL import Image

    path.mkdir()
    Image.new("1", (20_000, 20_000)).save(path / "a.png")


def place(text: str, path: Path, scene: Scene) -> str:
    return text.replace("SENTINEL", str(scene.sentinel))


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/tmp/x) (w) file closefile\n"
SVG = (
    b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]>'
    b'<svg xmlns="http://www.w3.org/2000/svg"><path d="&b;"/></svg>'
)
PNG = b"\x89PNG\r\n\x1a\n"
RUN_IMAGES = (("run", "images.toml"),)
RUN = (("run", "toys.toml"),)


def _of_results() -> list[Case]:
    links = [
        ("CELL/record.json", "/etc/passwd"),
        ("CELL/record.json", "/dev/zero"),
        ("CELL/cell.json", "OUTSIDE/mine"),
        ("CELL/lock", "OUTSIDE/mine"),
        ("CELL/running.json", "/dev/zero"),
        ("CELL/samples.npy", "/dev/zero"),
        ("CELL/history.csv", "/dev/zero"),
        ("CELL/timeout.txt", "OUTSIDE/mine"),
        ("CELL/checkpoint.pt", "OUTSIDE/mine"),
        ("CELL/x.partial", "OUTSIDE"),
        ("CELL/scores-x.json", "/dev/zero"),
        ("CELL", "OUTSIDE"),
        ("cells", "OUTSIDE"),
    ]
    reports = ["report.html", "leaderboard.md", "leaderboard.csv", "cells.csv", "samples.png",
               "layout.json", "written.json", "records.index"]  # fmt: skip
    html = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    return [
        *(Case(f"{a} is a link to {b}", partial(link, a, b), LOOK) for a, b in links),
        *(Case(f"{a} is a link", partial(link, a, "OUTSIDE/mine"), DRAW) for a in reports),
        *(Case(f"a pickle as {name}", partial(put_pickle, name), (*LOOK, *DRAW, *USE))
          for name in ("record.json", "samples.npy", "denoiser.safetensors",
                       "sampling.safetensors", "checkpoint.pt")),
        Case("an array of objects", partial(put_array, "samples.npy"), (*LOOK, *DRAW)),
        Case("code in a checkpoint", put_checkpoint, LOOK),
        Case("a record nested deeply", deep, LOOK),
        Case("an index that unpacks to much", bomb, LOOK),
        Case("escape sequences as a folder's name", renamed, (*LOOK, *DRAW)),
        Case("escape sequences in an error",
             partial(change, status="failed", error=ESCAPE), LOOK),
        Case("10 MB of error", partial(change, status="failed", error="x" * 10**7), LOOK),
        Case("HTML as a name", partial(change, cell={"sparsifier": html}), (*LOOK, *DRAW)),
        Case("a formula as a name", partial(change, cell={"sparsifier": "=1+1"}), (*LOOK, *DRAW)),
        Case("a record that reads /etc",
             partial(change, cell={"dataset": "image-folder",
                                   "dataset_settings": {"path": "/etc"}}), USE),
        Case("a record that reads the home folder",
             partial(change, cell={"dataset": "image-folder",
                                   "dataset_settings": {"path": "~"}}), USE),
        Case("a record that fetches a network",
             partial(change, cell={"model": "ldm",
                                   "model_settings": {"first_stage": "some/body"}}), USE),
        Case("a record of a model that is a path",
             partial(change, cell={"model": "../../../../etc/passwd"}), (*LOOK, *USE)),
    ]  # fmt: skip


def _of_benchmarks() -> list[Case]:
    name = 'name = "toys"'
    return [
        *(Case(f"the name {new!r}", partial(benchmark, old=name, new=f"name = {json.dumps(new)}"),
               RUN)
          for new in ("../toys", "/tmp/toys", ".", "..", "a\\b", ESCAPE, "\u202etoys", "-rf")),
        *(Case(f"the model {new!r}",
               partial(benchmark, old='"toy-net"', new=json.dumps(new)), RUN)
          for new in ("os.system", "../evil", f"{ESCAPE}x")),
        Case("a first stage elsewhere",
             partial(benchmark, old="sampling_steps = 4",
                     new='sampling_steps = 4\nfirst_stage = "/etc"'), RUN),
    ]  # fmt: skip


def _of_data() -> list[Case]:
    fills: dict[str, Callable[[Path, Scene], object]] = {
        "a zip that leads out": partial(zipped, {"../../outside/a.png": PNG}),
        "a zip with an absolute path": partial(zipped, {"OUTSIDE/a.png": PNG}),
        "a zip that unpacks to much": zip_bomb,
        "a zip with a link": zip_link,
        "a zip of nothing": partial(zipped, {}),
        "EPS as .png": partial(file_in, "a.png", EPS),
        "SVG as .png": partial(file_in, "a.png", SVG),
        "half a PNG": partial(file_in, "a.png", PNG),
        "an escape sequence as a name": partial(file_in, f"{ESCAPE}.png", PNG),
        "a pipe": partial(special, os.mkfifo),
        "a device": partial(special, lambda path: path.symlink_to("/dev/zero")),
        "a link to /etc/passwd": partial(special, lambda path: path.symlink_to("/etc/passwd")),
        "a link to itself": partial(special, lambda path: path.symlink_to(path.name)),
        "a link to the folder above": partial(special, lambda path: path.symlink_to("..")),
        "400 million pixels": huge,
        "a device as the folder": partial(place, "/dev/zero"),
        "a command as the folder": partial(place, "$(mkdir SENTINEL)"),
        "a command in a variable": partial(place, "`mkdir SENTINEL`"),
    }
    return [Case(name, partial(images, fill, ""), RUN_IMAGES) for name, fill in fills.items()]


CASES = [*_of_results(), *_of_benchmarks(), *_of_data()]


def hostile(world: World, span: range, chance: random.Random, deadline: float) -> Outcome:
    """Each case, or as many of them as there is time for."""
    finished = world.copy("finished")
    done = finished.dstbench("run", "toys.toml", "--jobs", "1", "--only", "model=toy-net")
    assert done.code == 0, done.said
    problems, tried = [], 0
    for case in drawn(CASES, span, chance):
        if time.monotonic() > deadline:
            break
        tried += 1
        trial = finished.copy("hostile")
        scene = Scene(trial, trial.folder / "outside", trial.folder / "executed")
        scene.outside.mkdir()
        (scene.outside / "mine").write_text("mine")
        cell = scene.cell
        case.set_up(scene)
        for command in case.commands:
            words = [word.replace("CELL", str(cell)) for word in command]
            if command[0] == "run":
                words += ["--jobs", "1", "--only", "model=toy-net"]
            if problem := _problem(scene, words):
                problems.append(f"{case.name}, {' '.join(command)}: {problem}")
        remove(trial.folder)
    return Outcome("hostile", tried, "hostile inputs, each with all commands that see it", problems)


def _problem(scene: Scene, command: Sequence[str]) -> str:
    trial = scene.world
    around = {path.name for path in trial.folder.iterdir()} | {"cache"}
    done = trial.start(*command).wait(SECONDS)
    new = {path.name for path in trial.folder.iterdir()} - around
    page = trial.results / "report.html"
    if scene.sentinel.exists():
        shutil.rmtree(scene.sentinel)
        return "executed"
    if done.code < 0 or done.code > 3:
        return f"exit code {done.code}: {done.said[-300:]}"
    if done.has_traceback:
        return f"a traceback: {done.said[-600:]}"
    if new or [path.name for path in scene.outside.iterdir()] != ["mine"]:
        return f"written elsewhere: {new}, {list(scene.outside.iterdir())}"
    if (scene.outside / "mine").read_text() != "mine":
        return "a file elsewhere was changed"
    if "\x1b]0;" in done.said or "\x1b[2J" in done.said:
        return "the terminal is told what to do"
    if len(done.said) > LONGEST:
        return f"{len(done.said)} characters are said"
    if page.is_file() and "<script>alert(1)" in page.read_text(encoding="utf-8"):
        return "HTML of a record in the report"
    return ""
