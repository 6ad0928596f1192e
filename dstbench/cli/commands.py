"""The commands: each calls the front door of :mod:`dstbench.api`, and prints.

Quick to start: what needs more than a moment to import is imported by its command.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dstbench.cli.options import (
    Against,
    Device,
    File,
    Folder,
    Folders,
    Jobs,
    Margin,
    Only,
    Preset,
    ResultsFolder,
    Skip,
    Threads,
    ThreadsEach,
    parse_jobs,
)
from dstbench.cli.printing import (
    log,
    log_into,
    note,
    notes,
    print_availability,
    print_cells,
    print_rows,
    show,
    tell,
    whereabouts,
)

if TYPE_CHECKING:
    from dstbench.report.results import Results
    from dstbench.running import Grid


def run(
    file: File,
    preset: Preset = None,
    only: Only = None,
    skip: Skip = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the cells and train nothing.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Download datasets and weights that are not there.")
    ] = False,
    results: ResultsFolder = Path("results"),
    executor: Annotated[
        str | None, typer.Option(help="Where cells are run; by default as the file says, or local.")
    ] = None,
    jobs: Jobs = None,
    device: Device = "auto",
    threads: ThreadsEach = None,
    log_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Add all that is told on the way, with the time, to a file: progress, warnings.",
        ),
    ] = None,
) -> None:
    """Train, sample and score every cell of a benchmark that has no result yet.

    Cells whose data is not there are skipped, and tried again by the next run. Several runs of one
    benchmark, on machines that share the results folder, share the work.

    Exit codes:
    0: all cells have a result;
    1: some failed or diverged;
    2: asked wrongly, nothing was trained;
    3: some were skipped, all others have a result.
    """
    from dstbench.running import load_grid

    log_into(log_file)
    grid = load_grid(file, preset, only=only or (), skip=skip or ())
    if dry_run:
        print_cells(grid.selected)
        return

    try:
        found = _run(grid, results, executor, jobs, device, threads, yes, log_file)
    except KeyboardInterrupt:
        tell("stopped; the same command goes on from the latest checkpoint")
        raise
    if found.records:
        text = found.written_text()
        try:
            if text is None:  # first: what is printed may meet a full disk, or a closed pipe
                found.write_report()
        finally:
            show(text or found.text())
        tell(f"written: {found.folder / 'leaderboard.md'}")
    statuses = {record.cell.id: record.status for record in found.records}
    selected = [statuses.get(cell.id) for cell in grid.selected]
    skipped = selected.count("skipped")
    unfinished = len(selected) - skipped - selected.count("done")
    if unfinished:
        tell(f"{unfinished} of {len(selected)} cells have no result")
    if skipped:
        tell(f"{skipped} of {len(selected)} cells were skipped: their data is not there")
    if unfinished or skipped:
        raise typer.Exit(1 if unfinished else 3)


def _run(
    grid: Grid,
    results: Path,
    executor: str | None,
    jobs: str | None,
    device: str,
    threads: int | None,
    download: bool,
    log_file: Path | None,
) -> Results:
    from dstbench.store.index import without_collector

    number = parse_jobs(jobs)
    where = grid.where(executor, number, device, threads, "auto")
    with without_collector():
        found = grid.finished(results, note)
        gc.freeze()  # none of it is garbage, which Python would begin with looking for
    if found is not None:
        return found
    prepared = grid.prepare(
        results,
        where,
        device=device,
        threads=threads,
        report=note,
        log_file=log_file and log_file.absolute(),
    )

    from dstbench.cli.progress import watching

    print_availability(prepared.availability(), download)
    with watching(notes, prepared.store, grid.selected, log if log_file else None):
        return prepared.run(download=download)


def plan(
    file: File,
    preset: Preset = None,
    only: Only = None,
    skip: Skip = None,
    format: Annotated[
        Literal["table", "csv", "json"],
        typer.Option(help="table: markdown, seeds together; csv, json: one row per cell."),
    ] = "table",
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate", help="Estimate times too, from a few training steps taken now."
        ),
    ] = False,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Say what every cell would cost: parameters, FLOPs, disk. Needs no data and trains nothing."""
    from dstbench.running import load_grid

    grid = load_grid(file, preset, only=only or (), skip=skip or ())

    import torch

    from dstbench.execution.machine import choose_device, environment
    from dstbench.report.plan import render_plan

    if threads is not None:
        torch.set_num_threads(threads)
    plans = grid.plan(device if calibrate else None)
    machine = environment(choose_device(device)).machine if calibrate else None
    print(render_plan(plans, format, grid.benchmark.name, machine), end="")


def status(
    folder: Folder,
) -> None:
    """Say which cells are done, running (where, since when), failed or waiting."""
    from collections import Counter

    from dstbench.store.status import statuses
    from dstbench.store.store import Store

    found = statuses(Store(folder))
    rows = [
        (each.cell.id, each.state, *whereabouts(each.claim, each.cell), each.detail)
        for each in found
    ]
    print_rows(["cell", "state", "where", "since", "step", "detail"], rows)
    counts = Counter(each.state for each in found)
    print(f"{len(found)} cells: {', '.join(f'{n} {state}' for state, n in counts.items())}")


def leaderboard(
    folder: Folder,
    format: Annotated[
        Literal["markdown", "csv", "latex", "json"], typer.Option(help="What to print.")
    ] = "markdown",
    per_seed: Annotated[
        bool,
        typer.Option("--per-seed", help="One row per cell: settings, scores, counts and times."),
    ] = False,
    against: Against = "dense",
    margin: Margin = None,
    write: Annotated[
        bool,
        typer.Option("--write", help="Also write it, its data, pictures and report.html anew."),
    ] = False,
) -> None:
    """Print the leaderboard of results that are there."""
    from dstbench.api import load_results
    from dstbench.report.cells import render_cells

    found = load_results(folder, against=against, margin=margin)
    try:
        if write:
            found.write_report()
    finally:
        show(render_cells(found.cells, format) if per_seed else found.text(format))
    if write:
        tell(f"written: {found.folder / 'leaderboard.md'}")


def report(
    folders: Folders,
    to: Annotated[Path, typer.Option("--to", "-o", help="The file to write.")] = Path(
        "report.html"
    ),
    against: Against = "dense",
    margin: Margin = None,
) -> None:
    """Write one HTML file that shows all there is of some results, and needs no network."""
    from dstbench.api import load_results
    from dstbench.report.page import write_page

    every = [load_results(folder, against=against, margin=margin) for folder in folders]
    write_page(every, to, ", ".join(found.name for found in every))
    tell(f"written: {to}")
