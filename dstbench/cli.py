"""The command line: thin, and quick to start; what needs torch is imported by its command."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TextIO

import typer
from rich.console import Console
from rich.markup import escape

from dstbench import __version__
from dstbench.errors import ConfigError, DstbenchError, PluginError, StoreError
from dstbench.failures import FAILURES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dstbench.config import Benchmark
    from dstbench.contracts import Availability, Executor
    from dstbench.grid import Cell
    from dstbench.needs import Need
    from dstbench.plugins import Plugin, Plugins
    from dstbench.records import Record
    from dstbench.store import Claim, Store

app = typer.Typer(
    name="dstbench",
    help="Benchmark sparse-to-sparse training of diffusion models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
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
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; by default torch's choice.")]
ThreadsEach = Annotated[
    int | None, typer.Option(min=1, help="CPU threads of each process; by default divided up.")
]

out = Console(soft_wrap=True)
notes = Console(stderr=True)


def main() -> None:
    """Run the command line: exit code 2 and one message for what was asked wrongly."""
    try:
        app()
    except DstbenchError as error:
        notes.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(2)


def _version(wanted: bool) -> None:
    if wanted:
        out.print(__version__, highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    file: File,
    preset: Preset = None,
    only: Only = None,
    skip: Skip = None,
    dry_run: Annotated[bool, typer.Option(help="Print the cells and train nothing.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Download datasets and weights that are not there.")
    ] = False,
    results: Annotated[Path, typer.Option(help="Folder that holds all results.")] = Path("results"),
    executor: Annotated[
        str | None, typer.Option(help="Where cells are run; by default as the file says, or local.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Cells at a time, each in a process (executor local)."),
    ] = None,
    device: Device = "auto",
    threads: ThreadsEach = None,
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
    from dstbench.config import load_benchmark
    from dstbench.grid import cells
    from dstbench.plugins import load_plugins
    from dstbench.selection import select, sparsifiers_named

    plugins = load_plugins()
    benchmark = load_benchmark(file, plugins, preset, sparsifiers_named(only or ()))
    grid = cells(benchmark)
    selected = select(grid, only or (), skip or ())
    if dry_run:
        _print_cells(selected)
        return
    where = _executor(file, benchmark, plugins, executor, jobs)

    import torch

    from dstbench.cache import Cache
    from dstbench.contracts import Workspace
    from dstbench.machine import choose_device
    from dstbench.progress import watching
    from dstbench.report import render, write_report
    from dstbench.runner import Runner
    from dstbench.store import Store

    if threads is not None:
        torch.set_num_threads(threads)
    store = Store(results / benchmark.name)
    runner = Runner(plugins, store, Workspace(choose_device(device), Cache(), _note))
    _print_availability(runner.availability(selected), yes)
    store.forget_others(grid)
    try:
        with watching(notes, store, selected):
            ran = runner.run_grid(
                selected,
                download=yes,
                executor=where,
                minutes=benchmark.execution.minutes_per_cell,
                threads=threads,
                device=device,
            )
    except KeyboardInterrupt:
        notes.print("stopped; the same command goes on from the latest checkpoint")
        raise typer.Exit(130) from None
    order = [cell.id for cell in grid]
    chosen = {cell.id for cell in selected}
    earlier = _records(store, [cell for cell in grid if cell.id not in chosen])
    records = sorted([*ran, *earlier], key=lambda record: order.index(record.cell.id))
    if records:
        print(render(records, "markdown", benchmark.name))
        try:
            write_report(records, store.folder, store.samples(records), benchmark.name)
        except OSError as error:
            raise StoreError(f"{store.folder}: cannot be written to: {error.strerror}") from None
        notes.print(f"written: {store.folder / 'leaderboard.md'}", highlight=False)
    skipped = sum(record.status == "skipped" for record in ran)
    unfinished = len(selected) - skipped - sum(record.status == "done" for record in ran)
    if unfinished:
        notes.print(f"{unfinished} of {len(selected)} cells have no result")
    if skipped:
        notes.print(f"{skipped} of {len(selected)} cells were skipped: their data is not there")
    if unfinished or skipped:
        raise typer.Exit(1 if unfinished else 3)


def _executor(
    file: Path, benchmark: Benchmark, plugins: Plugins, name: str | None, jobs: int | None
) -> Executor | None:
    """The executor that is asked for; ``jobs`` goes over what the file says."""
    name = name or benchmark.execution.executor
    if name is None and jobs is None and "local" not in plugins.names("executor"):
        return None  # what ships as a plugin may be left out
    name = name or "local"
    cls: type[Executor] = plugins.find("executor", name)
    if jobs is not None and name != "local":
        raise ConfigError(f"--jobs is of executor 'local', not of '{name}'")
    try:
        settings = benchmark.executors.get(name) or cls.Settings()
        return cls(settings if jobs is None else settings.model_copy(update={"jobs": jobs}))
    except DstbenchError:
        raise
    except FAILURES as error:
        raise PluginError(
            f"executor '{name}' cannot be had with its settings ([executors.{name}] in {file}, "
            f"'dstbench plugins {name}' lists them): {type(error).__name__}: {error}"
        ) from error


def _print_availability(found: list[tuple[Need, Availability]], download: bool) -> None:
    """A table of what is there and what is not, if there is such."""
    states = {availability.state for _, availability in found}
    if states <= {"ready"}:
        return
    rows = [
        (need.name, need.kind, len(need.cells), availability.state, availability.detail)
        for need, availability in found
    ]
    _print_rows(["name", "kind", "cells", "state", "detail"], rows, sys.stderr)
    if "download" in states and not download:
        notes.print("--yes downloads what can be; without it, the cells that need it are skipped")


def _records(store: Store, cells: Sequence[Cell]) -> Iterator[Record]:
    """Of those of the cells that have ended."""
    for cell in cells:
        try:
            record = store.cell(cell).record()
        except StoreError as error:
            _note(str(error))
        else:
            if record:
                yield record


@app.command()
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
        bool, typer.Option(help="Estimate times too, from a few training steps taken now.")
    ] = False,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Say what every cell would cost: parameters, FLOPs, disk. Needs no data and trains nothing."""
    from dstbench.config import load_benchmark
    from dstbench.grid import cells
    from dstbench.plugins import load_plugins
    from dstbench.selection import select, sparsifiers_named

    known = load_plugins()
    benchmark = load_benchmark(file, known, preset, sparsifiers_named(only or ()))
    grid = select(cells(benchmark), only or (), skip or ())

    import torch

    from dstbench.machine import choose_device, environment
    from dstbench.planning import plan as plan_cells
    from dstbench.report.plan import render_plan

    if threads is not None:
        torch.set_num_threads(threads)
    where = choose_device(device) if calibrate else None
    plans = plan_cells(grid, known, where)
    machine = environment(where).machine if where else None
    print(render_plan(plans, format, benchmark.name, machine), end="")


@app.command()
def status(
    folder: Annotated[Path, typer.Argument(help="A benchmark's results, e.g. results/quickstart.")],
) -> None:
    """Say which cells are done, running (where, since when), failed or waiting."""
    from collections import Counter

    from dstbench.status import statuses
    from dstbench.store import Store

    found = statuses(Store(folder))
    rows = [
        (each.cell.id, each.state, *_whereabouts(each.claim, each.cell), each.detail)
        for each in found
    ]
    _print_rows(["cell", "state", "where", "since", "step", "detail"], rows)
    counts = Counter(each.state for each in found)
    print(f"{len(found)} cells: {', '.join(f'{n} {state}' for state, n in counts.items())}")


def _whereabouts(claim: Claim | None, cell: Cell) -> tuple[str, str, str]:
    if claim is None:
        return "", "", ""
    return f"{claim.host}:{claim.pid}", claim.since, f"{claim.step}/{cell.training['steps']}"


@app.command()
def leaderboard(
    folder: Annotated[Path, typer.Argument(help="A benchmark's results, e.g. results/quickstart.")],
    format: Annotated[
        Literal["markdown", "csv", "latex", "json"], typer.Option(help="What to print.")
    ] = "markdown",
) -> None:
    """Print the leaderboard of results that are there."""
    from dstbench.report import render
    from dstbench.store import Store

    print(render(Store(folder).records(), format, folder.resolve().name))


@app.command()
def sample(
    cell: Annotated[Path, typer.Argument(help="A cell's folder, e.g. results/quickstart/cells/…")],
    count: Annotated[int, typer.Option(min=1, help="Samples to draw.")] = 16,
    format: Annotated[
        Literal["png", "svg"], typer.Option(help="svg: of models that draw strokes.")
    ] = "png",
    to: Annotated[Path, typer.Option(help="Folder for the files.")] = Path("samples"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Draw samples from a trained cell and write each to a file."""
    from dstbench.cache import Cache
    from dstbench.contracts import Workspace
    from dstbench.machine import choose_device
    from dstbench.plugins import load_plugins
    from dstbench.report.files import write_samples
    from dstbench.runner import Runner
    from dstbench.store import CellFolder, Store

    workspace = Workspace(choose_device(device), Cache(), _note)
    runner = Runner(load_plugins(), Store(cell.parent.parent), workspace)
    data, samples = runner.sample(CellFolder(cell), count)
    try:
        write_samples(samples, data, format, to)
    except OSError as error:
        raise StoreError(f"{to}: cannot be written to: {error.strerror}") from None
    notes.print(f"written: {count} files in {to}", highlight=False)


@app.command()
def plugins(
    name: Annotated[str | None, typer.Argument(help="Show this plugin's settings.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what is plugged in, or the settings of one plugin."""
    from dstbench.plugins import load_plugins

    known = load_plugins()
    chosen = known.named(name) if name else known.listing
    if as_json:
        print(json.dumps([_as_json(plugin, name is not None) for plugin in chosen], indent=2))
    elif name is None:
        _print_plugins(chosen)
    else:
        for plugin in chosen:
            _print_plugin(plugin)


@app.command()
def check(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Plugins, by name.")],
    kind: Annotated[
        str | None, typer.Option(help='Where a name has several: "model", "dataset", …')
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A setting of the plugin, in TOML; may be repeated."
        ),
    ] = None,
) -> None:
    """Check whether plugins keep the promises of their kind.

    Exit codes:
    0: all promises that could be checked are kept;
    1: some are broken;
    2: asked wrongly, or a plugin cannot be loaded.
    """
    from dstbench.plugins import load_plugins

    known = load_plugins()

    from dstbench.testing import checks
    from dstbench.testing.running import Outcome, find, line, parse_settings, report, run

    given = parse_settings(settings or ())
    chosen = [find(known, name, kind) for name in names]
    todo = [(plugin, checks(plugin.cls, given)) for plugin in chosen if plugin.cls]
    broken = False
    for plugin, promises in todo:
        print(f"{plugin.kind} {plugin.name}, of {plugin.distribution} {plugin.version}")
        outcomes: list[Outcome] = []
        for outcome in run(promises):
            print(line(outcome, outcomes), flush=True)
            outcomes.append(outcome)
        print(f"\n{report(outcomes)}\n")
        broken = broken or any(outcome.failure for outcome in outcomes)
    if broken:
        raise typer.Exit(1)


@app.command()
def new(
    kind: Annotated[
        Literal["sparsifier", "model", "dataset", "extractor"],
        typer.Argument(help="What to begin."),
    ],
    name: Annotated[str, typer.Argument(help="What benchmarks will call it, such as my-idea.")],
    to: Annotated[
        Path | None, typer.Option(help="Folder to make; by default, of the plugin's name.")
    ] = None,
) -> None:
    """Write a small installable package with a plugin that works, to be changed into yours."""
    from dstbench.plugins import load_plugins
    from dstbench.scaffold import next_commands, write_package

    folder = to or Path(name)
    write_package(kind, name, folder, load_plugins())
    commands = "\n".join(f"    {command}" for command in next_commands(name, folder))
    out.print(
        f"written: {folder}\n\nIt works as it stands: change what is marked CHANGE THIS. Next:\n\n"
        f"{commands}",
        markup=False,
        highlight=False,
    )


def _note(message: str) -> None:
    notes.print(f"    {message}", markup=False, soft_wrap=True)


def _print_cells(cells: list[Cell]) -> None:
    from dstbench.grid import variants

    settings = variants(cells)
    columns = ["cell", "model", "dataset", "sparsifier", "S", "seed", "varied settings"]
    _print_rows(
        columns,
        [
            (c.id, c.model, c.dataset, c.sparsifier, c.sparsity, c.seed, settings[c.id])
            for c in cells
        ],
    )
    print(f"{len(cells)} cells")


def _print_rows(
    columns: list[str], rows: Sequence[tuple[object, ...]], file: TextIO | None = None
) -> None:
    """A plain table, as wide as it takes: nothing is cut off, on a pipe or a narrow terminal."""
    from tabulate import tabulate

    print(tabulate(rows, columns, tablefmt="plain", disable_numparse=True), file=file)


def _print_plugins(listing: list[Plugin]) -> None:
    columns = ["name", "kind", "distribution", "version", "state"]
    _print_rows(
        columns, [(p.name, p.kind or "—", p.distribution, p.version, p.state) for p in listing]
    )
    for plugin in listing:
        if plugin.traceback:
            out.print(f"\n{plugin.name} is broken:\n{plugin.traceback}", markup=False)


def _print_plugin(plugin: Plugin) -> None:
    from rich.table import Column, Table

    from dstbench.plugins import describe, describe_settings

    text = describe(plugin.cls) if plugin.cls else plugin.traceback
    out.print(
        f"{plugin.name}: {plugin.kind or 'plugin'} of {plugin.origin}, {plugin.state}\n{text}\n",
        markup=False,
        highlight=False,
    )
    if plugin.cls is not None:
        table = Table(Column("setting", no_wrap=True), "type", "default", "meaning", box=None)
        for setting in describe_settings(plugin.cls.Settings):
            table.add_row(*map(escape, setting))
        out.print(table)


def _as_json(plugin: Plugin, with_settings: bool) -> dict[str, object]:
    from dstbench.plugins import describe_settings

    described: dict[str, object] = dict(plugin.as_dict())
    if with_settings and plugin.cls is not None:
        settings = describe_settings(plugin.cls.Settings)
        described["settings"] = [setting._asdict() for setting in settings]
    return described
