"""What differs between two results of a benchmark, in markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tabulate import tabulate

from dstbench.report.comparisons import Comparison
from dstbench.report.formatting import MISSING, escape_markdown, scaled, with_interval
from dstbench.report.leaderboard import Table
from dstbench.report.rows import Row
from dstbench.report.statistics import LEVEL
from dstbench.report.table_pairs import TablePair, shared_means
from dstbench.report.verdicts import in_words, p_in_words

_COUNTED = {
    "active_parameters": ("active parameters", "{:,.0f}".format),
    "inference_flops": ("theoretical GFLOPs", scaled(1e-9)),
    "training_flops": ("theoretical training FLOPs", "{:.3e}".format),
    "state_bytes": ("state MiB", scaled(2**-20)),
    "model_bytes": ("model MiB", scaled(2**-20)),
}
"""Costs that are counted, by their columns: told where they differ."""


def render(
    names: tuple[str, str],
    statuses: tuple[str, str],
    cells: Mapping[str, int],
    pairs: Sequence[TablePair],
    alone: tuple[Sequence[Table], Sequence[Table]],
) -> str:
    """The text of :meth:`dstbench.report.two_results.TwoResults.text`."""
    old, new = map(escape_markdown, names)
    told = [f"- {name}: {status}" for name, status in zip((old, new), statuses, strict=True)]
    same = f", {cells['same']} of them with equal scores" if cells["both"] else ""
    told.append(f"- cells in both: {cells['both']}{same}")
    parts = [f"# {old} and {new}", "\n".join(told)]
    for pair in pairs:
        if not (pair.first.skipped and pair.second.skipped):
            parts += _pair(pair, names)
    for name, tables in zip((old, new), alone, strict=True):
        if tables:
            parts.append(f"## In {name} alone")
            parts.append("\n".join(f"- {escape_markdown(_counted(table))}" for table in tables))
    return "\n\n".join(parts) + "\n"


def _pair(pair: TablePair, names: tuple[str, str]) -> Iterator[str]:
    first, second = pair.first.heading, pair.second.heading
    heading = second if first == second else f"{first}; {second}"
    yield f"## {escape_markdown(heading)}"
    for kind, found in pair.differences.items():
        if found:
            yield f"### {kind}"
            yield _table(["", *names], [(name, *values) for name, values in found.items()])
    if not any(pair.differences.values()):
        yield "The same settings, versions and machines, and the same way of scoring."
    yield "### Scores"
    yield from _scores(pair, names)
    yield "### Times"
    yield from _times(pair, names)
    if counted := list(_counts(pair)):
        yield "### Counts that differ"
        yield _table(["method", "S", "", *names], counted)
    for name, rows in zip(names, pair.alone, strict=True):
        if rows:
            told = ", ".join(f"{row.method}, S = {row.sparsity:g}" for row in rows)
            yield escape_markdown(f"Rows of {name} alone: {told}.")


def _scores(pair: TablePair, names: tuple[str, str]) -> Iterator[str]:
    if not pair.scored_alike:
        yield "Not compared: samples were not scored in the same way."
        return
    compared = [each for each in pair.comparisons if each.differences.seeds]
    if not compared:
        yield "Not compared: no row of both has a score of a seed that both have."
        return
    header = ["score", "method", "S", "seeds", *names, "difference", "95 % interval", "p (Holm)",
              "verdict"]  # fmt: skip
    yield _table(header, [_line(each) for each in compared])
    tests = [each for each in compared if each.metric == compared[0].metric]
    count = sum(not math.isnan(each.tests.p) for each in tests)
    yield escape_markdown(
        f"Means over the seeds that both have; differences are {names[1]} − {names[0]}, paired "
        "over these seeds, with Student's intervals. Better or worse: by two-sided paired t-tests, "
        f"Holm-corrected at {LEVEL:.0%} over all rows of a score ({count} of "
        f"{compared[0].metric.title}); as good: within ± {100 * pair.margin:.3g}% of the mean of "
        f"{names[0]}, by two one-sided t-tests (TOST), corrected likewise. No difference detected "
        "does not mean that there is none."
    )


def _line(compared: Comparison) -> list[str]:
    digits, metric = compared.metric.decimals, compared.metric
    low, high = compared.differences.interval
    p = compared.tests.holm_p
    means = [f"{mean:.{digits}f}" for mean in shared_means(compared)]
    return [
        f"{metric.title} {'↓' if metric.better == 'lower' else '↑'}",
        compared.row.method,
        f"{compared.row.sparsity:g}",
        str(compared.differences.seeds),
        *means,
        f"{compared.differences.mean:+.{digits}f}",
        MISSING if math.isnan(low) else f"{low:+.{digits}f} to {high:+.{digits}f}",
        MISSING if math.isnan(p) else p_in_words(p),
        in_words(compared),
    ]


def _times(pair: TablePair, names: tuple[str, str]) -> Iterator[str]:
    header = ["method", "S"] + [
        f"{what}: {name}"
        for what in ("ms per step", "ms per sample", "step time (×)", "sample time (×)")
        for name in names
    ]
    yield _table(header, [_time_line(pair, *rows) for rows in pair.rows])
    yield (
        "(×): measured against the dense twin, in turns in one process, ± the 95 % interval. "
        "Milliseconds are of runs apart, and make no ratio."
    )


def _time_line(pair: TablePair, old: Row, new: Row) -> list[str]:
    found = {name: (was, now) for name, was, now in pair.costs(old, new)}
    told = [new.method, f"{new.sparsity:g}"]
    for name in ("training_step_seconds", "sample_seconds"):
        told += [MISSING if math.isnan(v) else scaled(1000)(v) for v in found[name]]
    for what in ("step_time", "sample_time"):
        parts = zip(*(found[f"{what}_{part}"] for part in ("ratio", "low", "high")), strict=True)
        told += [with_interval(*each) for each in parts]
    return told


def _counts(pair: TablePair) -> Iterator[list[str]]:
    for old, new in pair.rows:
        for name, was, now in pair.costs(old, new):
            if name in _COUNTED and was != now and not (math.isnan(was) and math.isnan(now)):
                title, form = _COUNTED[name]
                told = [MISSING if math.isnan(value) else form(value) for value in (was, now)]
                yield [new.method, f"{new.sparsity:g}", title, *told]


def _counted(table: Table) -> str:
    cells = len(table.records)
    return f"{table.heading}: {cells} cell{'s' * (cells > 1)}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    escaped = [[escape_markdown(entry) for entry in row] for row in rows]
    return tabulate(escaped, list(map(escape_markdown, header)), "pipe", disable_numparse=True)
