"""The report: one HTML file that shows all there is of some benchmarks, and needs no network."""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from importlib import resources
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import itables
import numpy as np
import pandas as pd
from itables.javascript import generate_init_offline_itables_html
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs

from dstbench.cell import Cell
from dstbench.errors import StoreError
from dstbench.records import Record
from dstbench.report.facts import values
from dstbench.report.floors import warnings
from dstbench.report.leaderboard import Table
from dstbench.report.neighbours import CAPTION, alternating
from dstbench.report.notes import notes_below, why_skipped
from dstbench.report.page.charts import Chart, learning_curves, topologies, trade_offs
from dstbench.report.rows import Row
from dstbench.report.sheet import row_label, strip_of
from dstbench.report.templates import render_template
from dstbench.report.text import columns_of
from dstbench.report.verdicts import differences
from dstbench.store.files import write_atomically

STRIPS = 4 * 2**20
"""Bytes of sample pictures in a report, after which further seeds are left out."""
CURVES = 60
"""Most learning curves of a table."""
MAPS = 40
"""Most rows of a table whose layers are shown."""


class Shown(Protocol):
    """What a report shows of the results of a benchmark: :class:`dstbench.Results`."""

    name: str
    records: list[Record]

    @property
    def tables(self) -> list[Table]: ...
    def history(self, cell: Cell, /) -> pd.DataFrame: ...
    def topology(self, cell: Cell, /) -> pd.DataFrame: ...
    def samples(self, cell: Cell, /) -> NDArray[np.uint8]: ...
    def reals(self, cell: Cell, /) -> NDArray[np.uint8]: ...
    def neighbours(self, cell: Cell, /) -> NDArray[np.uint8]: ...


def write_page(every: Sequence[Shown], path: Path, title: str) -> None:
    """Write the report of some results into an HTML file, which appears whole or not at all.

    Raises:
        StoreError: nothing has been run, or the file cannot be written.
    """
    if path.is_dir():
        raise StoreError(f"{path}: is a folder; name a file to write")
    text = render_page(every, title)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, partial(Path.write_text, data=text, encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}") from None


def render_page(every: Sequence[Shown], title: str, live: str = "") -> str:
    """The report of some results, HTML.

    Args:
        live: the version of a page that a dashboard serves, where it is one.

    Raises:
        StoreError: nothing has been run.
    """
    sections = [section for results in every if results.records for section in _sections(results)]
    if not sections:
        raise StoreError("there is no record to make a report of: run the benchmark first")
    statuses = Counter(record.status for results in every for record in results.records)
    bundle = resources.files(itables) / "html" / "dt_bundle.js"
    with resources.as_file(bundle) as file:
        # What follows the script is for notebooks.
        script, end, _ = generate_init_offline_itables_html(file).partition("</script>")
    return render_template(
        "page.html",
        title=title,
        summary=", ".join(
            f"{count} cell{'s' * (count != 1)} {status}" for status, count in statuses.items()
        ),
        sections=sections,
        plotly=get_plotlyjs(),
        datatables=script + end,
        datatables_promise=f"_itables_{itables.__version__.replace('.', '_')}",
        live=live,
    )


def _sections(results: Shown) -> Iterator[dict[str, Any]]:
    """What the page shows of each table of some results."""
    for table in results.tables:
        columns = [] if table.skipped else list(columns_of(table))
        entries = zip(*(column.entries for column in columns), strict=True)
        yield {
            "heading": f"{results.name}: {table.heading}",
            "warnings": [] if table.skipped else list(warnings(table)),
            "header": [column.title for column in columns],
            "rows": [[{**e._asdict(), "order": _order(e.text)} for e in row] for row in entries],
            "notes": [why_skipped(table)] if table.skipped else list(notes_below(table)),
            "differences": differences(table),
            "charts": [
                *trade_offs(table),
                *_curves(table, results),
                *_topologies(table, results),
            ],
            "pages": list(_pages(table, results)),
            "failures": [
                {"name": _name(row, record), "error": record.error or record.status}
                for row in table.rows
                for record in row.unfinished
            ],
            "facts": _facts(table),
        }


def _order(text: str) -> str:
    """What a table is sorted by: the number that an entry begins with, or else its text; what is
    not known comes last."""
    if found := re.match(r"-?\d[\d,]*\.?\d*(e[+-]?\d+)?", text):
        return found[0].replace(",", "")
    return "1e300" if text == "—" else text


def _curves(table: Table, results: Shown) -> Iterator[Chart]:
    known: list[tuple[Row, Record, pd.DataFrame]] = []
    for row in table.rows:
        for record in row.records[: CURVES - len(known)]:
            with suppress(StoreError, OSError, ValueError):
                history = results.history(record.cell)
                if len(history):
                    known.append((row, record, history))
    if known:
        yield learning_curves(known)


def _topologies(table: Table, results: Shown) -> Iterator[Chart]:
    """The layers of the first cell of each sparse row."""
    known = []
    for row in table.rows[:MAPS]:
        with suppress(StoreError, OSError, ValueError, IndexError):
            topology = results.topology(row.done[0].cell)
            if len(topology):
                known.append((row, topology))
    if known:
        yield topologies(known)


def _pages(table: Table, results: Shown) -> Iterator[dict[str, Any]]:
    """Samples of each seed, a strip for each row, the same noise in each column; and those of the
    first seed beside their nearest training images."""
    by_seed: dict[int, list[tuple[Row, Record]]] = {}
    for row in table.rows:
        for record in row.done:
            by_seed.setdefault(record.cell.seed, []).append((row, record))
    seeds = sorted(by_seed)
    size = 0
    for seed in seeds:
        if size > STRIPS:
            return
        strips = []
        of_seed = by_seed[seed]
        for _, record in of_seed:
            with suppress(StoreError, OSError, ValueError):
                strips.append(_picture("real images", results.reals(record.cell), record))
                break
        for row, record in of_seed:
            with suppress(StoreError, OSError, ValueError):
                samples = results.samples(record.cell)
                strips.append(_picture(row_label(row.method, row.sparsity), samples, record))
        pairs = []
        for row, record in of_seed if seed == seeds[0] else ():
            with suppress(StoreError, OSError, ValueError):
                near = results.neighbours(record.cell)
                beside = alternating(results.samples(record.cell), near)
                pairs.append(_picture(row_label(row.method, row.sparsity), beside, record))
        size += sum(len(strip["png"]) for strip in (*strips, *pairs))
        if strips:
            yield {"name": f"seed {seed}", "strips": strips}
        if pairs:
            yield {"name": f"seed {seed}, {CAPTION}", "strips": pairs}


def _picture(name: str, images: NDArray[np.uint8], record: Record) -> dict[str, str]:
    """A strip of images, to be shown under a name."""
    file = BytesIO()
    strip_of(images, record.cell.id).save(file, "png")
    return {"label": name, "png": base64.b64encode(file.getvalue()).decode()}


def _name(row: Row, record: Record) -> str:
    return f"{row_label(row.method, row.sparsity)}, seed {record.cell.seed} ({record.cell.id})"


def _facts(table: Table) -> dict[str, dict[str, str]]:
    """The protocol, every setting and the surroundings, in words."""
    protocol = table.protocol.model_dump() if table.protocol else {}
    return {
        "How samples were scored": {name: str(value) for name, value in protocol.items()},
        "Settings": values([record.cell.settings for record in table.records]),
        "Machines and versions": values(
            [record.environment.model_dump(mode="json") for record in table.records]
        ),
    }
