"""The command about all others, and about the tables of benchmark files."""

from __future__ import annotations

from typing import Annotated

import typer

from dstbench.cli.printing import print_rows, print_topic


def help(
    context: typer.Context,
    topic: Annotated[
        str | None,
        typer.Argument(help="A table of benchmark files, such as training; or a command."),
    ] = None,
) -> None:
    """List the keys of a table of benchmark files: type, default, meaning.

    Without a topic: the topics and commands there are.
    """
    from dstbench.errors import ConfigError, did_you_mean
    from dstbench.grid.reference import TOPICS

    program = context.find_root().command
    assert isinstance(program, typer.core.TyperGroup)
    commands = {name: command.help or "" for name, command in program.commands.items()}
    if topic is None:
        print_rows(["topic", "says"], [(name, each.summary) for name, each in TOPICS.items()])
        print()
        summaries = [(name, text.partition("\n")[0]) for name, text in commands.items()]
        print_rows(["command", "does"], summaries)
    elif topic in TOPICS:
        print_topic(TOPICS[topic])
    elif topic in commands:
        program.main([topic, "--help"], prog_name="dstbench")
    else:
        hint = did_you_mean(topic, [*TOPICS, *commands])
        raise ConfigError(f"unknown topic '{topic}'; {hint}")
