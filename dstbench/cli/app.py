"""The command line itself: its options, and how it ends."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.markup import escape

from dstbench.cli.commands import leaderboard, plan, run, sample, status
from dstbench.cli.export_commands import export, push
from dstbench.cli.help import help
from dstbench.cli.plugin_commands import check, machine, new, plugins
from dstbench.cli.printing import notes, out
from dstbench.errors import DstbenchError

app = typer.Typer(
    name="dstbench",
    help="Benchmark sparse-to-sparse training of diffusion models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    *(run, plan, status, leaderboard, sample, export, push),
    *(plugins, check, new, machine, help),
):
    app.command()(command)


def main() -> None:
    """Run the command line: exit code 2 and one message for what was asked wrongly."""
    try:
        app()
    except DstbenchError as error:
        notes.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(2)


def _version(wanted: bool) -> None:
    if wanted:
        from dstbench import __version__

        out.print(__version__, highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
