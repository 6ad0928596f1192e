"""The commands about several results: put together, compared, shown to others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from dstbench.cli.options import Folder, Folders
from dstbench.cli.printing import show, tell


def merge(
    folders: Folders,
    to: Annotated[Path, typer.Option("--to", "-o", help="Folder to make, which is not there yet.")],
    keep: Annotated[
        Literal["first", "last"] | None,
        typer.Option(help="Which result stays where folders have different ones of a cell."),
    ] = None,
) -> None:
    """Put the cells of several results into a new folder, with leaderboard and report.

    A cell that is in several of them is there once; with different results, nothing is merged
    unless --keep says which stays. What has not ended is left out. Folders may be anybody's:
    nothing in them is executed, and no link is followed.
    """
    from dstbench.api import merge as merge_results

    found = merge_results(folders, to, keep=keep)
    show(found.text())
    tell(f"written: {to}")


def compare(
    first: Folder,
    second: Folder,
    margin: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Difference that would not matter, as a fraction of the first's mean score; by "
            "default as its benchmark file says.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what differs between two results: settings, versions, scores, times."""
    from dstbench.api import compare as compare_results

    found = compare_results(first, second, margin=margin)
    show(json.dumps(found.as_dict(), indent=2) if as_json else found.text())


def publish(
    folders: Folders,
    to: Annotated[
        Path, typer.Option(help="Folder to write: new, empty, or a site that was published there.")
    ],
) -> None:
    """Write a static site of results, to be put on a forge's pages.

    An index, and of each benchmark its report, leaderboard, data and pictures, made anew from its
    records. The pages fetch nothing from elsewhere.
    """
    from dstbench.api import publish as publish_results

    publish_results(folders, to)
    tell(f"written: {to / 'index.html'}")


def dashboard(
    folder: Annotated[
        Path, typer.Argument(help="Results of several benchmarks, or of one.")
    ] = Path("results"),
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on this machine; 0: one that is free.")
    ] = 8765,
) -> None:
    """Show results in a browser of this machine while benchmarks run, until Ctrl-C.

    Pages follow the run by themselves. Other machines cannot ask for them.
    """
    from dstbench.report.dashboard.server import serve

    serve(folder, port, lambda address: tell(f"{address} shows {folder}; Ctrl-C ends it"))
