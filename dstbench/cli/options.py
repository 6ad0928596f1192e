"""Arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MOST = 1024
"""Threads, or processes, of one machine at most."""

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
Folder = Annotated[Path, typer.Argument(help="A benchmark's results, e.g. results/quickstart.")]
ResultsFolder = Annotated[Path, typer.Option(help="Folder that holds all results.")]
