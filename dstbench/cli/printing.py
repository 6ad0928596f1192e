"""What commands print: results on standard output, the rest on standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from dstbench.cli.streams import clean

if TYPE_CHECKING:
    from dstbench.cell import Cell
    from dstbench.contracts import Availability
    from dstbench.execution.requirements import Requirement
    from dstbench.grid.reference import Topic
    from dstbench.plugins.describe import Setting
    from dstbench.plugins.plugin import Plugin
    from dstbench.store.claim import Claim

LONGEST_NOTE = 10_000
"""Characters of a note at most: a terminal would take minutes for millions."""


class _Notes(Console):
    """Standard error: what cannot be told there ends nothing."""

    def print(self, *objects: Any, **how: Any) -> None:
        with suppress(OSError):
            super().print(*objects, **how)

    def on_broken_pipe(self) -> None:
        self.quiet = True


out = Console(soft_wrap=True)
notes = _Notes(stderr=True)
_logs: list[Callable[[str], None]] = []
"""What is called with all that is told: nothing, or what adds it to a file."""


class _NotedWarnings(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())


def note_warnings() -> None:
    """Tell on standard error what the logger ``dstbench`` warns of."""
    logger = logging.getLogger("dstbench")
    if not any(isinstance(each, _NotedWarnings) for each in logger.handlers):
        logger.addHandler(_NotedWarnings(logging.WARNING))


def show(text: str) -> None:
    """Print a result, with what a terminal would obey written out."""
    print(clean(text))


def tell(text: str) -> None:
    """Print what was done."""
    notes.print(clean(text), markup=False, highlight=False, soft_wrap=True)
    log(text)


def tell_error(text: str) -> None:
    """Print what was asked wrongly."""
    notes.print(
        f"[bold red]error:[/] {escape(clean(_bounded(text)))}", soft_wrap=True, highlight=False
    )
    log(f"error: {text}")


def print_availability(found: list[tuple[Requirement, Availability]], download: bool) -> None:
    """A table of what is there and what is not, if there is such."""
    states = {availability.state for _, availability in found}
    if states <= {"ready"}:
        return
    rows = [
        (each.name, each.kind, len(each.cells), availability.state, availability.detail)
        for each, availability in found
    ]
    table = _rows(["name", "kind", "cells", "state", "detail"], rows)
    print(table, file=sys.stderr)
    log(table)
    if "download" in states and not download:
        tell("--yes downloads what can be; without it, the cells that need it are skipped")


def whereabouts(claim: Claim | None, cell: Cell) -> tuple[str, str, str]:
    if claim is None:
        return "", "", ""
    return f"{claim.host}:{claim.pid}", claim.since, f"{claim.step}/{cell.training['steps']}"


def note(message: str) -> None:
    notes.print(f"    {clean(_bounded(message))}", markup=False, soft_wrap=True)
    log(message)


def log_into(path: Path | None) -> None:
    """Add all that is told from now on to that file as well, or to none.

    Raises :class:`~dstbench.errors.ConfigError` for a file that cannot be written to.
    """
    _logs.clear()
    if path is not None:
        from dstbench.execution import log_file

        log_file.begin(path)
        _logs.append(partial(log_file.add, path))


def log(text: str) -> None:
    """Add what was told to the file that it goes into, if there is one."""
    for add in _logs:
        add(clean(_bounded(text)))


def _bounded(text: str) -> str:
    return text if len(text) <= LONGEST_NOTE else f"{text[:LONGEST_NOTE]} …"


def print_cells(cells: Sequence[Cell]) -> None:
    from dstbench.grid.variants import variants

    settings = variants(cells)
    columns = ["cell", "model", "dataset", "sparsifier", "S", "seed", "varied settings"]
    print_rows(
        columns,
        [
            (c.id, c.model, c.dataset, c.sparsifier, c.sparsity, c.seed, settings[c.id])
            for c in cells
        ],
    )
    print(f"{len(cells)} cells")


def print_rows(columns: list[str], rows: Sequence[tuple[object, ...]]) -> None:
    print(_rows(columns, rows))


def _rows(columns: list[str], rows: Sequence[tuple[object, ...]]) -> str:
    """A plain table, as wide as it takes: nothing is cut off, on a pipe or a narrow terminal."""
    from tabulate import tabulate

    cells = [[clean(str(value)) for value in row] for row in rows]
    return tabulate(cells, columns, tablefmt="plain", disable_numparse=True)


def print_plugins(listing: list[Plugin]) -> None:
    columns = ["name", "kind", "distribution", "version", "state"]
    print_rows(
        columns, [(p.name, p.kind or "—", p.distribution, p.version, _state(p)) for p in listing]
    )
    for plugin in listing:
        if plugin.traceback:
            out.print(clean(f"\n{plugin.name} is broken:\n{plugin.traceback}"), markup=False)


def print_plugin(plugin: Plugin) -> None:
    from dstbench.plugins.describe import describe, describe_settings

    text = describe(plugin.cls) if plugin.cls else clean(plugin.traceback or plugin.summary)
    out.print(
        f"{plugin.name}: {plugin.kind or 'plugin'} of {plugin.origin}, {_state(plugin)}\n{text}\n",
        markup=False,
        highlight=False,
    )
    if plugin.cls is not None:
        print_settings("setting", describe_settings(plugin.cls.Settings))


def _state(plugin: Plugin) -> str:
    return f"needs {', '.join(plugin.needs)}" if plugin.needs else plugin.state


def print_topic(topic: Topic) -> None:
    header = f"{topic.header}\n" if topic.header else ""
    out.print(f"{header}{topic.text}", markup=False, highlight=False)
    if topic.keys:
        print()
        print_settings("key", topic.keys)


def print_settings(word: str, settings: Sequence[Setting]) -> None:
    from rich.table import Column, Table

    table = Table(Column(word, no_wrap=True), "type", "default", "meaning", box=None)
    for setting in settings:
        table.add_row(*map(escape, setting))
    out.print(table)


def plugin_as_json(plugin: Plugin, with_settings: bool) -> dict[str, object]:
    from dstbench.plugins.describe import describe_settings

    described: dict[str, object] = dict(plugin.as_dict())
    if with_settings and plugin.cls is not None:
        settings = describe_settings(plugin.cls.Settings)
        described["settings"] = [setting._asdict() for setting in settings]
    return described
