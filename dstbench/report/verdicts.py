"""What the tests of a table say, in words: marks, differences, and a recommendation."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dstbench.cell import DENSE, SMALL_DENSE
from dstbench.report.comparisons import Comparison
from dstbench.report.formatting import MISSING, with_interval
from dstbench.report.leaderboard import Table
from dstbench.report.rows import FID
from dstbench.report.statistics import LEVEL, SEEDS_OF_A_TEST

Grid = tuple[list[str], list[list[str]]]
"""Header and body of a table of text."""


def marks(table: Table) -> str:
    """What the marks beside scores mean, and by which tests they were given."""
    bold = "Bold: the best mean, of at least two seeds and not tied; it is no test."
    compared = [each for each in table.comparisons if each.with_reference]
    tested = [each for each in compared if each.decides and not math.isnan(each.tests.p)]
    if not tested:
        return f"{_why_no_marks(table, compared)} {bold}"
    reference, margin = _reference(table), _margin(table)
    return (
        f"Marks, against {reference}: ▲ better, ▼ worse, by two-sided paired t-tests over the "
        f"{_seeds(tested)} that both rows have, Holm-corrected at {LEVEL:.0%} over all comparisons "
        f"of a score in this table ({_number(table, tested[0])} of {tested[0].metric.title}: rows "
        f"with {reference}, methods with each other at the same S); ≈ as good as {reference}: "
        f"within ± {margin} of its mean score, by two one-sided t-tests (TOST), Holm-corrected "
        f"at {LEVEL:.0%} over the rows (▼≈: worse, but by less than that); no mark: "
        f"no difference detected, or fewer than {SEEDS_OF_A_TEST} seeds. {bold}"
    )


def recommendation(table: Table) -> str | None:
    """The sparsest rows whose FID is shown not to be worse than dense's by more than the margin;
    ``None`` where that is shown of none."""
    compared = table.with_reference(FID).values()
    tests = sum(not math.isnan(each.tests.not_worse_p) for each in compared)
    found = [
        each
        for each in compared
        if each.not_worse and each.row.sparsity > 0 and each.row.sparsifier != SMALL_DENSE
    ]
    if table.reference.method != DENSE or not found:
        return None
    sparsest = max(each.row.sparsity for each in found)
    best = [each for each in found if each.row.sparsity == sparsest]
    p = max(each.tests.not_worse_holm_p for each in best)
    rows = "; ".join(_with_time(table, each) for each in best)
    return (
        f"Sparsest {'row' if len(best) == 1 else 'rows'} not worse than dense by more than "
        f"{_margin(table)} of dense's {FID.title}: {rows} (one-sided paired t-test over "
        f"{_seeds(best)}, Holm-corrected at {LEVEL:.0%} over {tests} "
        f"{'row' if tests == 1 else 'rows'}: p {p_in_words(p, '= ')})."
    )


def differences(table: Table) -> tuple[str, Grid] | None:
    """The differences of FID, with what is to be said above them; ``None`` without any test."""
    found = [each for each in table.comparisons if each.metric == FID]
    tested = [each for each in found if not math.isnan(each.tests.p)]
    if not tested:
        return None
    title = (
        f"Differences of {FID.title} ({FID.better} is better), paired over {_seeds(tested)}; "
        f"p of two-sided t-tests, Holm-corrected over these {len(tested)}:"
    )
    header = ["S", "score", "A − B", "mean difference", "95 % interval", "p (Holm)"]
    return title, (header, [_line(each) for each in tested])


def in_words(compared: Comparison) -> str:
    """What the tests of a comparison with the reference say."""
    if not any(compared.differences.values):
        return "the same"
    if not compared.decides:
        return f"no verdict: fewer than {SEEDS_OF_A_TEST} seeds"
    if math.isnan(compared.tests.p):
        return "no verdict: the differences of all seeds are the same"
    if compared.better or compared.worse:
        word = "better" if compared.better else "worse"
        return f"{word}, by less than the margin" if compared.equivalent else word
    return "as good" if compared.equivalent else "no difference detected"


def _line(compared: Comparison) -> list[str]:
    digits = compared.metric.decimals
    low, high = compared.differences.interval
    return [
        f"{compared.row.sparsity:g}",
        compared.metric.title,
        f"{compared.row.method} − {compared.other.method}",
        f"{compared.differences.mean:+.{digits}f}",
        f"{low:+.{digits}f} to {high:+.{digits}f}",
        p_in_words(compared.tests.holm_p),
    ]


def _why_no_marks(table: Table, compared: Sequence[Comparison]) -> str:
    if not compared:
        return f"No marks: no row shares a seed with {_reference(table)}."
    most = max(each.differences.seeds for each in compared)
    if most < SEEDS_OF_A_TEST:
        return (
            f"No marks: a test takes at least {SEEDS_OF_A_TEST} seeds that both rows have; there "
            f"{'is one' if most == 1 else f'are {most}'}."
        )
    return "No marks: over all seeds the differences are the same, which leaves nothing to test."


def _reference(table: Table) -> str:
    method = table.reference.method
    return method if method == DENSE else f"{method} at the same S"


def _margin(table: Table) -> str:
    return f"{100 * table.reference.margin:.3g}%"


def _number(table: Table, of: Comparison) -> int:
    """How many tests the family of one has."""
    return sum(
        each.metric == of.metric and not math.isnan(each.tests.p) for each in table.comparisons
    )


def _with_time(table: Table, compared: Comparison) -> str:
    frame, row = table.frame, compared.row
    line = frame[(frame["method"] == row.method) & (frame["sparsity"] == row.sparsity)].iloc[0]
    time = with_interval(*(line[f"step_time_{part}"] for part in ("ratio", "low", "high")))
    known = "" if time == MISSING else f", measured step time × {time}"
    return f"{row.method}, S = {row.sparsity:g}{known}"


def _seeds(compared: Sequence[Comparison]) -> str:
    numbers = {each.differences.seeds for each in compared}
    least, most = min(numbers), max(numbers)
    return f"{most} seeds" if least == most else f"{least} to {most} seeds"


def p_in_words(p: float, equals: str = "") -> str:
    return "< 0.001" if p < 0.001 else f"{equals}{p:.3f}"
