"""The commands about plugins: what there is, whether it keeps its promises, how to begin one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from dstbench.cli.printing import (
    out,
    plugin_as_json,
    print_plugin,
    print_plugins,
)


def plugins(
    name: Annotated[str | None, typer.Argument(help="Show this plugin's settings.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what is plugged in, or the settings of one plugin."""
    from dstbench.plugins.registry import load_plugins

    known = load_plugins()
    chosen = known.named(name) if name else known.listing
    if as_json:
        print(json.dumps([plugin_as_json(plugin, name is not None) for plugin in chosen], indent=2))
    elif name is None:
        print_plugins(chosen)
    else:
        for plugin in chosen:
            print_plugin(plugin)


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
    from dstbench.plugins.registry import load_plugins

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


def new(
    kind: Annotated[
        Literal[
            "sparsifier", "model", "dataset", "feature-extractor", "metric", "executor", "tracker"
        ],
        typer.Argument(help="What to begin."),
    ],
    name: Annotated[str, typer.Argument(help="What benchmarks will call it, such as my-idea.")],
    to: Annotated[
        Path | None, typer.Option(help="Folder to make; by default, of the plugin's name.")
    ] = None,
) -> None:
    """Write a small installable package with a plugin that works, to be changed into yours."""
    from dstbench.plugins.registry import load_plugins
    from dstbench.scaffold.package import next_commands, write_package

    folder = to or Path(name)
    write_package(kind, name, folder, load_plugins())
    commands = "\n".join(f"    {command}" for command in next_commands(name, folder))
    out.print(
        f"written: {folder}\n\nIt works as it stands: change what is marked CHANGE THIS. Next:\n\n"
        f"{commands}",
        markup=False,
        highlight=False,
    )


def machine(
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Measure up to which density sparse kernels are the faster ones here, in some two "
            "minutes, and keep it for all later runs of this machine.",
        ),
    ] = False,
) -> None:
    """Show which kernels this machine has, and when they are used."""
    import torch

    from dstbench.kernels import library, thresholds
    from dstbench.kernels.choice import DEFAULT_THRESHOLDS, SIZES

    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(library.describe())
    if measure:
        thresholds.measure(lambda line: print(f"    {line}", flush=True))
    found = thresholds.measured()
    origin = "measured here" if found else "those shipped; --measure finds this machine's"
    print(f'\nkernels = "auto" takes sparse ones up to these densities ({origin}):\n')
    print(f"{'':12} {'small':>7} {'medium':>7} {'large':>7}")
    for kind, densities in (found or DEFAULT_THRESHOLDS).items():
        print(f"{kind:12} " + " ".join(f"{density:7g}" for density in densities))
    print(
        f"\nmedium: from {SIZES[0]:,} positions (pixels, tokens, points) in a batch on; large: "
        f"from {SIZES[1]:,}\n:4: where four neighbouring output channels share their connections"
    )
