"""The commands that draw samples from trained cells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dstbench.cli.options import Device, OneCell, Trust, assigned, download_only_if, named
from dstbench.cli.printing import note, print_rows, tell
from dstbench.disk import write_error

if TYPE_CHECKING:
    from dstbench.execution.pipeline import Pipeline


def sample(
    cell: OneCell,
    count: Annotated[int, typer.Option(min=1, help="Samples to draw.")] = 16,
    format: Annotated[
        Literal["png", "svg"], typer.Option(help="svg: of models that draw strokes.")
    ] = "png",
    to: Annotated[Path, typer.Option(help="Folder for the files.")] = Path("samples"),
    yes: Trust = False,
    device: Device = "auto",
) -> None:
    """Draw samples from a trained cell and write each to a file."""
    download_only_if(yes)
    from dstbench.report.files import write_samples
    from dstbench.store.folder import CellFolder

    data, samples = _pipeline(device).sample(CellFolder(cell), count, trusted=yes)
    try:
        write_samples(samples, data, format, to)
    except OSError as error:
        raise write_error(error, to) from None
    tell(f"written: {count} files in {to}")


def score(
    folder: Annotated[
        Path, typer.Argument(help="A benchmark's results, or the folder of one of its cells.")
    ],
    extractor: Annotated[
        str | None, typer.Option(help="Another feature extractor, by its plugin's name.")
    ] = None,
    extractor_setting: Annotated[
        list[str] | None,
        typer.Option(
            "--extractor-set",
            metavar="NAME=VALUE",
            help="A setting of that feature extractor; may be repeated.",
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="A score to compute beside the cells' own; may be repeated."),
    ] = None,
    steps: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Another number of sampling steps; may be repeated."),
    ] = None,
    eta: Annotated[
        list[float] | None,
        typer.Option(help="Another η, of a model that has it; may be repeated."),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE[,VALUE…]",
            help="Other values of a setting of the model's sampling; may be repeated.",
        ),
    ] = None,
    noises: Annotated[
        int | None,
        typer.Option(min=1, max=10**4, help="Noises that each cell is sampled from."),
    ] = None,
    yes: Annotated[
        bool,
        typer.Option("--yes", "-y", help="Read files that records name, and download."),
    ] = False,
    device: Device = "auto",
) -> None:
    """Score trained cells in other ways, without training: samples are drawn anew from their
    weights, from the same noise. Prints the scores beside those that were there; the leaderboard
    shows them in tables of their own.
    """
    download_only_if(yes)
    from dstbench.execution.rescoring import evaluations, rescore, trained_cells
    from dstbench.report.side_by_side import side_by_side

    sampling: list[tuple[str, Sequence[Any]]] = [*map(named, setting or ())]
    sampling += [("sampling_steps", steps)] if steps else []
    sampling += [("eta", eta)] if eta else []
    settings = dict(map(assigned, extractor_setting or ()))
    asked = evaluations(extractor, metric or (), sampling, noises, settings)
    pipeline = _pipeline(device)
    for cell in trained_cells(folder):
        found = [rescore(pipeline, cell, each, download=yes) for each in asked]
        if own := cell.record():
            print_rows(*side_by_side([own, *(record for record in found if record)]))


def _pipeline(device: str) -> Pipeline:
    from dstbench.cache import Cache
    from dstbench.contracts import Workspace
    from dstbench.execution.machine import choose_device
    from dstbench.execution.pipeline import Pipeline
    from dstbench.plugins.registry import load_plugins

    return Pipeline(load_plugins(), Workspace(choose_device(device), Cache(), note))
