"""The leaderboard as text: markdown and LaTeX to read, csv and json to compute with."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

from tabulate import tabulate

from dstbench.records import Record
from dstbench.report.comparisons import AGAINST_DENSE, Reference
from dstbench.report.floors import warnings
from dstbench.report.formatting import (
    as_csv,
    decimals_of,
    escape_markdown,
    fixed,
    scaled,
    with_interval,
    with_ratio,
)
from dstbench.report.leaderboard import Table, leaderboard_frame, tables
from dstbench.report.notes import notes_below, told_sparsities, why_skipped
from dstbench.report.rows import Metric
from dstbench.report.verdicts import differences

Format = Literal["markdown", "csv", "latex", "json"]


def render(
    records: Sequence[Record],
    format: Format = "markdown",
    title: str = "Leaderboard",
    reference: Reference = AGAINST_DENSE,
) -> str:
    """The leaderboard of these records as text.

    Markdown and LaTeX (which needs the packages ``booktabs`` and ``amssymb``) have one table per
    task and protocol, with notes below it, and markdown the differences that were tested; csv and
    json hold the numbers of :func:`dstbench.report.leaderboard.leaderboard`.

    Raises:
        StoreError: there are no records, or two of the same cell.
        ConfigError: there is no method of the reference's name.
    """
    return render_tables(tables(records, reference), format, title)


def render_tables(found: Sequence[Table], format: Format, title: str = "Leaderboard") -> str:
    """The text of :func:`render`, from the tables of its records."""
    if format == "csv":
        return as_csv(leaderboard_frame(found))
    if format == "json":
        frame = leaderboard_frame(found).astype(object)
        return json.dumps(frame.where(frame.notna(), None).to_dict("records"), indent=2) + "\n"
    document = _markdown if format == "markdown" else _latex
    return document(found, title)


class Entry(NamedTuple):
    """What stands in one place of a table."""

    text: str
    best: bool = False
    mark: str = ""


class Column(NamedTuple):
    """A column of a table, an entry for each row."""

    title: str
    entries: list[Entry]


def columns_of(table: Table) -> Iterator[Column]:
    """The columns that a table is shown with."""
    frame = table.frame
    yield Column("method", [Entry(method) for method in frame["method"]])
    yield Column("S", [Entry(f"{sparsity:g}") for sparsity in frame["sparsity"]])
    for title, name in told_sparsities(table).items():
        yield Column(title, [Entry(fixed(v, 3)) for v in frame[name]])
    yield Column("whole-model S", [Entry(fixed(v, 3)) for v in frame["whole_model_sparsity"]])
    yield Column("seeds", [Entry(str(seeds)) for seeds in frame["seeds"]])
    if any(record.budget for record in table.records):
        yield Column(
            "steps",
            [Entry(with_ratio(steps, math.nan, "{:,.0f}".format)) for steps in frame["steps"]],
        )
    for metric in table.metrics:
        if frame[f"{metric.field}_n"].any():
            yield _score_column(table, metric)
    for title, name, form in (
        ("active parameters (×)", "active_parameters", "{:,.0f}".format),
        ("theoretical GFLOPs (×)", "inference_flops", scaled(1e-9)),
        ("theoretical training FLOPs (×)", "training_flops", "{:.2e}".format),
        ("state MiB (×)", "state_bytes", scaled(2**-20)),
        ("model MiB (×)", "model_bytes", scaled(2**-20)),
    ):
        values = zip(frame[name], frame[f"{name}_ratio"], strict=True)
        yield Column(title, [Entry(with_ratio(value, ratio, form)) for value, ratio in values])
    if frame["gpu_peak_bytes"].notna().any():
        peaks = [Entry(with_ratio(v, math.nan, scaled(2**-20))) for v in frame["gpu_peak_bytes"]]
        yield Column("peak GPU MiB", peaks)
    for title, name in (("step time (×)", "step_time"), ("sample time (×)", "sample_time")):
        parts = [f"{name}_{part}" for part in ("ratio", "low", "high", "clock")]
        lines = frame[parts].itertuples(index=False, name=None)
        yield Column(title, [Entry(_time(*line)) for line in lines])


def _time(ratio: float, low: float, high: float, clocks: str) -> str:
    text = with_interval(ratio, low, high)
    return f"{text} (CPU)" if "cpu" in clocks else text


def _score_column(table: Table, metric: Metric) -> Column:
    scores = table.frame[[f"{metric.field}_{part}" for part in ("mean", "std", "n")]]
    means = scores[f"{metric.field}_mean"]
    digits = max(metric.decimals, decimals_of(means.abs().max()))
    every = [fixed(mean, digits) for mean in means]
    best = fixed(means.min() if metric.better == "lower" else means.max(), digits)
    alone = every.count(best) == 1 < means.count()
    compared = table.with_reference(metric)
    entries = []
    for row, text, (_, std, n) in zip(
        table.rows, every, scores.itertuples(index=False, name=None), strict=True
    ):
        shown = f"{text} ± {std:.{digits}f}" if n > 1 else text
        if 0 < n < len(row.done):
            shown += f" (n = {n})"
        mark = compared[row.key].mark if row.key in compared else ""
        entries.append(Entry(shown, alone and n > 1 and text == best, mark))
    return Column(f"{metric.title} {'↓' if metric.better == 'lower' else '↑'}", entries)


class _Markup(NamedTuple):
    escape: Callable[[str], str]
    bold: Callable[[str], str]


def _header_and_body(table: Table, markup: _Markup) -> tuple[list[str], list[list[str]]]:
    columns = list(columns_of(table))
    header = [markup.escape(column.title) for column in columns]
    rows = zip(*(column.entries for column in columns), strict=True)
    return header, [[_marked_up(entry, markup) for entry in row] for row in rows]


def _marked_up(entry: Entry, markup: _Markup) -> str:
    text = markup.escape(entry.text)
    if entry.best:
        text = markup.bold(text)
    return f"{text} {markup.escape(entry.mark)}" if entry.mark else text


def _markdown(tables: Sequence[Table], title: str) -> str:
    markup = _Markup(escape_markdown, "**{}**".format)
    parts = [f"# {escape_markdown(title)}"]
    for table in tables:
        if table.skipped:
            continue
        header, body = _header_and_body(table, markup)
        alignment = ["left"] + ["right"] * (len(header) - 1)
        parts += [
            f"## {escape_markdown(table.heading)}",
            *(f"**{escape_markdown(warning)}**" for warning in warnings(table)),
            tabulate(body, header, "pipe", disable_numparse=True, colalign=alignment),
            "\n".join(f"- {escape_markdown(note)}" for note in notes_below(table)),
        ]
        if found := differences(table):
            title, (header, body) = found
            escaped = [[escape_markdown(entry) for entry in line] for line in body]
            parts += [
                escape_markdown(title),
                tabulate(escaped, header, "pipe", disable_numparse=True, stralign="right"),
            ]
    if skipped := [f"- {escape_markdown(why_skipped(table))}" for table in tables if table.skipped]:
        parts += ["## Skipped", "\n".join(skipped)]
    return "\n\n".join(parts) + "\n"


def _latex(tables: Sequence[Table], title: str) -> str:
    markup = _Markup(_escape_latex, r"\textbf{{{}}}".format)
    parts = [f"% {' '.join(title.split())}"]
    for table in tables:
        if table.skipped:
            parts.append(_escape_latex(why_skipped(table)))
            continue
        header, body = _header_and_body(table, markup)
        rows = [" & ".join(row) + r" \\" for row in [header, *body]]
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    rf"\caption{{{_escape_latex(' '.join([table.heading, *warnings(table)]))}}}",
                    rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
                    r"\toprule",
                    rows[0],
                    r"\midrule",
                    *rows[1:],
                    r"\bottomrule",
                    r"\end{tabular}",
                    *(rf"\par\footnotesize {_escape_latex(note)}" for note in notes_below(table)),
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"


_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        **{character: rf"\{character}" for character in "&%$#_{}"},
        "×": r"$\times$",
        "±": r"$\pm$",
        "↓": r"$\downarrow$",
        "↑": r"$\uparrow$",
        "▲": r"$\blacktriangle$",
        "▼": r"$\blacktriangledown$",
        "≈": r"$\approx$",
        "—": "---",
        "…": r"\dots{}",
    }
)


def _escape_latex(text: str) -> str:
    return " ".join(text.split()).translate(_LATEX)
