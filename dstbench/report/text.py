"""The leaderboard as text: markdown and LaTeX to read, csv and json to compute with."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean
from textwrap import shorten
from typing import Literal, NamedTuple

from tabulate import tabulate

from dstbench.leaderboard import METRICS, Metric, Table, leaderboard, machines, tables
from dstbench.metrics import caveats
from dstbench.records import Record

Format = Literal["markdown", "csv", "latex", "json"]

MISSING = "—"
SIGNIFICANCE = 0.05


def render(
    records: Sequence[Record], format: Format = "markdown", title: str = "Leaderboard"
) -> str:
    """The leaderboard of these records as text.

    Markdown and LaTeX (which needs the packages ``booktabs`` and ``amssymb``) have one table per
    task and protocol, with notes below it; csv and json hold the numbers of
    :func:`dstbench.leaderboard.leaderboard`.

    Raises:
        StoreError: there are no records, or two of the same cell.
    """
    if format == "csv":
        return leaderboard(records).to_csv(index=False)
    if format == "json":
        frame = leaderboard(records).astype(object)
        return json.dumps(frame.where(frame.notna(), None).to_dict("records"), indent=2) + "\n"
    document = _markdown if format == "markdown" else _latex
    return document(tables(records), title)


class _Entry(NamedTuple):
    text: str
    best: bool = False
    mark: str = ""


class _Column(NamedTuple):
    title: str
    entries: list[_Entry]


def _columns(table: Table) -> Iterator[_Column]:
    frame = table.frame
    yield _Column("method", [_Entry(method) for method in frame["method"]])
    yield _Column("S", [_Entry(f"{sparsity:g}") for sparsity in frame["sparsity"]])
    yield _Column("whole-model S", [_Entry(_fixed(v, 3)) for v in frame["whole_model_sparsity"]])
    yield _Column("seeds", [_Entry(str(seeds)) for seeds in frame["seeds"]])
    for metric in METRICS:
        if frame[f"{metric.field}_n"].any():
            yield _score_column(table, metric)
    for title, name, form in (
        ("active parameters (×)", "active_parameters", "{:,.0f}".format),
        ("theoretical GFLOPs (×)", "inference_flops", scaled(1e-9)),
        ("theoretical training FLOPs (×)", "training_flops", "{:.2e}".format),
        ("measured ms/step (×)", "training_step_seconds", scaled(1e3)),
        ("measured ms/sample (×)", "sample_seconds", scaled(1e3)),
        ("measured peak MiB (×)", "peak_memory_bytes", scaled(2**-20)),
    ):
        values = zip(frame[name], frame[f"{name}_ratio"], strict=True)
        yield _Column(title, [_Entry(with_ratio(value, ratio, form)) for value, ratio in values])


def _score_column(table: Table, metric: Metric) -> _Column:
    parts = ("mean", "std", "n", "difference", "p")
    scores = table.frame[[f"{metric.field}_{part}" for part in parts]]
    means = scores[f"{metric.field}_mean"]
    digits = max(metric.decimals, _decimals(means.abs().max()))
    best = _fixed(means.min() if metric.better == "lower" else means.max(), digits)
    entries = []
    for seeds, (mean, std, n, difference, p) in zip(
        table.frame["seeds"], scores.itertuples(index=False, name=None), strict=True
    ):
        text = shown = _fixed(mean, digits)
        if n > 1:
            text += f" ± {std:.{digits}f}"
        if 0 < n < seeds:
            text += f" (n = {n})"
        entries.append(_Entry(text, shown == best, _mark(difference, p, metric)))
    return _Column(f"{metric.title} {'↓' if metric.better == 'lower' else '↑'}", entries)


def _mark(difference: float, p: float, metric: Metric) -> str:
    """How a score compares with dense's; a note below the table says what the marks mean."""
    better = difference < 0 if metric.better == "lower" else difference > 0
    if p < SIGNIFICANCE:
        return "▲" if better else "▼"
    return "△" if better else ""


def _skipped(table: Table) -> str:
    """All there is to say of a table whose cells were all skipped."""
    count = len(table.records)
    reasons = dict.fromkeys(record.error or "no reason given" for record in table.records)
    cells = "1 cell" if count == 1 else f"{count} cells"
    return f"{table.heading}: {cells} skipped: {'; '.join(reasons)}"


def _notes(table: Table) -> Iterator[str]:
    protocol = table.protocol
    if failures := [
        f"{row.method}, S = {row.sparsity:g}, seed {record.cell.seed}: {_reason(record)}"
        for row in table.rows
        for record in row.unfinished
    ]:
        cells = "1 cell" if len(failures) == 1 else f"{len(failures)} cells"
        yield f"{cells} did not finish, and no number above includes them: {'; '.join(failures)}."
    for caveat in caveats(protocol) if protocol else ():
        yield f"Warning: {caveat}"
    if protocol:
        yield (
            "Scores: mean ± sample standard deviation over seeds; feature extractor "
            f"{protocol.extractor} (weights {protocol.weights_hash[:12]}), {protocol.samples:,} "
            f"samples against {protocol.reference_images:,} images of {protocol.reference}, "
            f"resize: {protocol.resize}."
        )
        yield _LEGEND if table.dense else "Best in bold."
    if untrained := _untrained(table):
        yield untrained
    yield (
        "S is the fraction of the sparsifiable weights that are zero, whole-model S that of all "
        "parameters; (×): relative to dense."
    )
    yield (
        "Theoretical FLOPs: a masked weight costs nothing, one multiply-add = one FLOP; GFLOPs are "
        f"those of one denoiser call{_calls_per_sample(table)}; decoder not included."
    )
    if places := machines(record for record in table.records if record.status == "done"):
        yield (
            f"Times and memory were measured cell by cell on {'; '.join(places)}. Memory is what a "
            "GPU has allocated, on a CPU that of the whole process."
        ) + (
            " Rows of another machine than dense's have no ratio to it." if len(places) > 1 else ""
        )


_LEGEND = (
    "Best in bold. Against dense, over the seeds both have: ▲ better by more than noise, △ better, "
    "but within noise or with too few seeds to tell, ▼ worse by more than noise (two-sided paired "
    f"t-test at {SIGNIFICANCE:.0%}, not corrected for the number of comparisons)."
)


def _untrained(table: Table) -> str | None:
    fid = METRICS[0]
    before = [
        record.untrained_scores.fid
        for record in table.records
        if record.untrained_scores and record.untrained_scores.fid is not None
    ]
    if not before:
        return None
    text = f"Untrained denoiser: FID {fmean(before):.2f}"
    dense = table.dense.scores(fid) if table.dense else {}
    if not dense:
        return f"{text}."
    return f"{text}; the dense cells reach {fmean(dense.values()) / fmean(before):.3f} of it."


def _calls_per_sample(table: Table) -> str:
    counts = next((record.counts for record in table.records if record.counts), None)
    if counts is None:
        return ""
    return f", of which a sample takes {counts.sample_flops / counts.inference_flops:.0f}"


def _reason(record: Record) -> str:
    """Status and the last line of the error, which is where a traceback says what happened."""
    lines = (record.error or "").strip().splitlines()
    return (
        f"{record.status}, {shorten(lines[-1], 200, placeholder='…')}" if lines else record.status
    )


def with_ratio(value: float, ratio: float, form: Callable[[float], str]) -> str:
    if math.isnan(value):
        return MISSING
    return form(value) if math.isnan(ratio) else f"{form(value)} (×{ratio:.3f})"


def scaled(scale: float) -> Callable[[float], str]:
    return lambda value: f"{value * scale:,.{_decimals(value * scale)}f}"


def _fixed(value: float, decimals: int) -> str:
    return MISSING if math.isnan(value) else f"{value:.{decimals}f}"


def _decimals(value: float) -> int:
    """How many decimals show three significant digits of a value."""
    return max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0


class _Markup(NamedTuple):
    escape: Callable[[str], str]
    bold: Callable[[str], str]


def _header_and_body(table: Table, markup: _Markup) -> tuple[list[str], list[list[str]]]:
    columns = list(_columns(table))
    header = [markup.escape(column.title) for column in columns]
    rows = zip(*(column.entries for column in columns), strict=True)
    return header, [[_marked_up(entry, markup) for entry in row] for row in rows]


def _marked_up(entry: _Entry, markup: _Markup) -> str:
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
            tabulate(body, header, "pipe", disable_numparse=True, colalign=alignment),
            "\n".join(f"- {escape_markdown(note)}" for note in _notes(table)),
        ]
    if skipped := [f"- {escape_markdown(_skipped(table))}" for table in tables if table.skipped]:
        parts += ["## Skipped", "\n".join(skipped)]
    return "\n\n".join(parts) + "\n"


def _latex(tables: Sequence[Table], title: str) -> str:
    markup = _Markup(_escape_latex, r"\textbf{{{}}}".format)
    parts = [f"% {' '.join(title.split())}"]
    for table in tables:
        if table.skipped:
            parts.append(_escape_latex(_skipped(table)))
            continue
        header, body = _header_and_body(table, markup)
        rows = [" & ".join(row) + r" \\" for row in [header, *body]]
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    rf"\caption{{{_escape_latex(table.heading)}}}",
                    rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
                    r"\toprule",
                    rows[0],
                    r"\midrule",
                    *rows[1:],
                    r"\bottomrule",
                    r"\end{tabular}",
                    *(rf"\par\footnotesize {_escape_latex(note)}" for note in _notes(table)),
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"


def escape_markdown(text: str) -> str:
    """Text that reads as it stands: no markup, no HTML, no end of a table's cell."""
    one_line = html.escape(" ".join(text.split()), quote=False)
    # An underscore within a word is no markup.
    return re.sub(r"[\\`*|\[]|(?<!\w)_|_(?!\w)", r"\\\g<0>", one_line)


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
        "△": r"$\vartriangle$",
        "▼": r"$\blacktriangledown$",
        "—": "---",
        "…": r"\dots{}",
    }
)


def _escape_latex(text: str) -> str:
    return " ".join(text.split()).translate(_LATEX)
