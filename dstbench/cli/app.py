"""The command line itself: its options, and how it ends."""

from __future__ import annotations

import gc
import sys
from contextlib import suppress
from typing import Annotated

import typer

from dstbench.cli.cell_commands import sample, score
from dstbench.cli.commands import leaderboard, plan, report, run, status
from dstbench.cli.export_commands import export, push
from dstbench.cli.help import help
from dstbench.cli.plugin_commands import check, machine, new, plugins
from dstbench.cli.printing import log_into, note_warnings, out, tell_error
from dstbench.cli.results_commands import compare, dashboard, merge, publish
from dstbench.cli.signals import stoppable
from dstbench.cli.streams import (
    is_about_output,
    leave_output,
    output_error,
    replace_what_cannot_be_encoded,
)
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
    *(run, plan, status, leaderboard, report, dashboard, merge, compare, publish),
    *(sample, score, export, push),
    *(plugins, check, new, machine, help),
):
    app.command()(command)


def main() -> None:
    """Run the command line.

    Exit code 2 and one message for what was asked wrongly; 1 where its output cannot be written,
    quietly where nobody reads it any more; 128 and a signal's number where that has ended it.
    """
    code: object = 0
    with stoppable() as asked, suppress(KeyboardInterrupt):  # it is among those that were asked
        code = _code()
    gc.freeze()  # else Python looks through thousands of records for garbage before it ends
    sys.exit(128 + asked[0] if asked else code)  # type: ignore[arg-type]


def _code() -> object:
    """Run the command that was asked for; the exit code."""
    replace_what_cannot_be_encoded()
    note_warnings()
    log_into(None)
    failure: OSError | None = None
    code: object = 0
    try:
        app()
    except SystemExit as end:
        code = end.code
    except DstbenchError as error:
        tell_error(str(error))
        code = 2
    except OSError as error:
        if not is_about_output(error):
            raise
        failure = error
    if failure := failure or output_error():
        leave_output()
        if not isinstance(failure, BrokenPipeError):
            tell_error(f"standard output cannot be written to: {failure.strerror}")
        code = code or 1
    return code


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
