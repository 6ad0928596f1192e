"""Arguments and options that several commands take."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dstbench.errors import ConfigError
from dstbench.parallel import MOST

File = Annotated[Path, typer.Argument(help="Benchmark file (TOML).")]
Preset = Annotated[
    str | None, typer.Option(help="Preset of the file, whose keys win over all others.")
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE[,VALUE…]",
        help="Select the cells with such a model, dataset, sparsifier, sparsity or seed; may be "
        "repeated. A sparsifier that the file does not name joins its grid.",
    ),
]
Skip = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE[,VALUE…]", help="Leave out such cells; may be repeated."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Threads = Annotated[
    int | None, typer.Option(min=1, max=MOST, help="CPU threads; by default torch's choice.")
]
ThreadsEach = Annotated[
    int | None,
    typer.Option(min=1, max=MOST, help="CPU threads of each process; by default divided up."),
]
Jobs = Annotated[
    str | None,
    typer.Option(
        metavar="auto|N",
        help="Cells at a time, each in a process (executor local); by default as the file says, or "
        "auto: one per GPU, without GPUs one-thread processes on all cores for small networks.",
    ),
]
Folder = Annotated[Path, typer.Argument(help="A benchmark's results, e.g. results/quickstart.")]
Folders = Annotated[
    list[Path], typer.Argument(help="Results of benchmarks, e.g. results/quickstart.")
]
OneCell = Annotated[Path, typer.Argument(help="A cell's folder, e.g. results/quickstart/cells/…")]
Trust = Annotated[
    bool, typer.Option("--yes", "-y", help="Read files that the cell's record names, and download.")
]
Against = Annotated[
    str,
    typer.Option(metavar="METHOD", help="Compare rows with this method, at the same sparsity."),
]
Margin = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Difference that would not matter, as a fraction of that method's mean score; by "
        "default as the benchmark file says.",
    ),
]
ResultsFolder = Annotated[Path, typer.Option(help="Folder that holds all results.")]


def parse_jobs(text: str | None) -> int | Literal["auto"] | None:
    """The value of ``--jobs``.

    Raises :class:`ConfigError` for what is neither ``auto`` nor a number from 1 to 1024.
    """
    if text is None:
        return None
    if text == "auto":
        return "auto"
    if text.isdecimal() and len(text) < 10 and 0 < int(text) <= MOST:
        return int(text)
    raise ConfigError(f"--jobs {text:.20}: should be auto, or a number from 1 to {MOST}")


def download_only_if(yes: bool) -> None:
    """Keep the hub's library from fetching what a cell's record names, unless that is allowed. It
    looks when it is imported."""
    if not yes:
        os.environ["HF_HUB_OFFLINE"] = "1"


def named(text: str) -> tuple[str, list[Any]]:
    """The name and the values of ``NAME=VALUE[,VALUE…]``: numbers, true and false, or words.

    Raises :class:`ConfigError` for what is not of that form.
    """
    name, values = _parts(text, "--set", "eta=0,0.5,1")
    return name, [_value(value) for value in values.split(",")]


def assigned(text: str) -> tuple[str, Any]:
    """The name and the value of ``NAME=VALUE``: a number, true or false, or a word.

    Raises :class:`ConfigError` for what is not of that form.
    """
    name, value = _parts(text, "--extractor-set", "size=base")
    return name, _value(value)


def _parts(text: str, option: str, right: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not (name and value):
        raise ConfigError(f"{option} {text:.40}: NAME=VALUE would be right, such as {right}")
    return name, value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
