"""The commands that draw samples from trained cells."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dstbench.cli.options import Device, OneCell, Trust, download_only_if
from dstbench.cli.printing import note, tell
from dstbench.errors import StoreError

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
        raise StoreError(f"{to}: cannot be written to: {error.strerror}") from None
    tell(f"written: {count} files in {to}")


def score(
    folder: Annotated[
        Path, typer.Argument(help="A benchmark's results, or the folder of one of its cells.")
    ],
    extractor: Annotated[
        str | None, typer.Option(help="Another feature extractor, by its plugin's name.")
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
    yes: Annotated[
        bool,
        typer.Option("--yes", "-y", help="Read files that records name, and download."),
    ] = False,
    device: Device = "auto",
) -> None:
    """Score trained cells in other ways, without training: samples are drawn anew from their
    weights, from the same noise. The leaderboard shows these scores in tables of their own.
    """
    download_only_if(yes)
    from dstbench.execution.rescoring import evaluations, rescore, trained_cells

    pipeline = _pipeline(device)
    for asked in evaluations(extractor, metric or (), steps or (), eta or ()):
        for cell in trained_cells(folder):
            rescore(pipeline, cell, asked, download=yes)


def _pipeline(device: str) -> Pipeline:
    from dstbench.cache import Cache
    from dstbench.contracts import Workspace
    from dstbench.execution.machine import choose_device
    from dstbench.execution.pipeline import Pipeline
    from dstbench.plugins.registry import load_plugins

    return Pipeline(load_plugins(), Workspace(choose_device(device), Cache(), note))
