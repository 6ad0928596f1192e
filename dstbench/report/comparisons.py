"""How rows of a table compare: with a reference, and with each other at the same sparsity."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import combinations
from statistics import fmean
from typing import Any

from dstbench.cell import DENSE
from dstbench.report.rows import Metric, Row
from dstbench.report.statistics import (
    LEVEL,
    SEEDS_OF_A_TEST,
    PairedDifferences,
    holm,
    paired,
)
from dstbench.settings import ReportSettings

MARGIN = ReportSettings().margin


@dataclass(frozen=True)
class Reference:
    """The method that rows are compared with, and the difference that would not matter."""

    method: str = DENSE
    """``dense``, or another method by its name in the table: each row is then compared with that
    method at the row's sparsity."""
    margin: float = MARGIN
    """Fraction of the reference's mean score."""


AGAINST_DENSE = Reference()


@dataclass(frozen=True)
class PValues:
    """The p-values of a comparison, and the same corrected by Holm's method over their family.

    The family of ``p`` are all comparisons of a score in a table, that of the other two those with
    the reference. NaN is what was not tested.
    """

    p: float
    """Two-sided paired t-test of a difference."""
    holm_p: float
    equivalence_p: float
    """Two one-sided tests (TOST) of a difference smaller than the margin."""
    equivalence_holm_p: float
    not_worse_p: float
    """One-sided test of being worse by less than the margin, if at all (non-inferiority)."""
    not_worse_holm_p: float


@dataclass(frozen=True)
class Comparison:
    """A score of one row against that of another, over the seeds that both have."""

    metric: Metric
    row: Row
    other: Row
    with_reference: bool
    """Whether ``other`` is the reference; elsewhere both are methods at the same sparsity."""
    margin: float
    """The difference that would not matter, in units of the score: the fraction of the reference's
    mean over the shared seeds. NaN between methods."""
    differences: PairedDifferences
    tests: PValues

    @property
    def decides(self) -> bool:
        """Whether there are seeds enough for a verdict."""
        return self.differences.seeds >= SEEDS_OF_A_TEST

    @property
    def better(self) -> bool:
        """Whether the row is shown to be better than the other."""
        return self.decides and self.tests.holm_p < LEVEL and self._gain > 0

    @property
    def worse(self) -> bool:
        """Whether the row is shown to be worse than the other."""
        return self.decides and self.tests.holm_p < LEVEL and self._gain < 0

    @property
    def equivalent(self) -> bool:
        """Whether the two are shown to differ by less than the margin."""
        return self.decides and self.tests.equivalence_holm_p < LEVEL

    @property
    def not_worse(self) -> bool:
        """Whether the row is shown not to be worse than the other by more than the margin."""
        return self.decides and self.tests.not_worse_holm_p < LEVEL

    @property
    def mark(self) -> str:
        """The verdicts on the row in signs: ▲ better, ▼ worse, ≈ equivalent, perhaps besides."""
        return "▲" * self.better + "▼" * self.worse + "≈" * self.equivalent

    @property
    def _gain(self) -> float:
        mean = self.differences.mean
        return -mean if self.metric.better == "lower" else mean

    def line(self) -> dict[str, Any]:
        """One line of ``comparisons.csv``."""
        low, high = self.differences.interval
        return {
            "score": self.metric.field,
            "method": self.row.method,
            "sparsity": self.row.sparsity,
            "against": self.other.method,
            "against_sparsity": self.other.sparsity,
            "with_reference": self.with_reference,
            "seeds": self.differences.seeds,
            "difference": self.differences.mean,
            "low": low,
            "high": high,
            "margin": self.margin,
            **asdict(self.tests),
            "mark": self.mark,
        }


COLUMNS = (
    "score", "method", "sparsity", "against", "against_sparsity", "with_reference", "seeds",
    "difference", "low", "high", "margin", *(test.name for test in fields(PValues)), "mark",
)  # fmt: skip
"""What :meth:`Comparison.line` has."""


Pair = tuple[Row, Row, bool]
"""Two rows that are compared, and whether the second is the reference."""


def compare(rows: Sequence[Row], metric: Metric, reference: Reference) -> list[Comparison]:
    """All comparisons of a score in a table: of each row with the reference, in their order, then
    of each two other rows at the same sparsity, that which stands first minus the other.

    Rows without a shared seed are not compared.
    """
    return compare_pairs(list(_pairs(rows, reference.method)), metric, reference.margin)


def compare_pairs(pairs: Sequence[Pair], metric: Metric, margin: float) -> list[Comparison]:
    """Comparisons of a score in these pairs of rows, as one family of tests.

    ``margin`` is the difference that would not matter, as a fraction of the reference's mean. Rows
    without a shared seed are not compared.
    """
    rows = {id(row): row for pair in pairs for row in pair[:2]}
    scores = {key: row.scores(metric) for key, row in rows.items()}
    compared, margins, differences = [], [], []
    for pair in pairs:
        ours, theirs = (scores[id(row)] for row in pair[:2])
        if shared := sorted(ours.keys() & theirs.keys()):
            mean = fmean(theirs[seed] for seed in shared)
            compared.append(pair)
            margins.append(margin * abs(mean) if pair[2] else math.nan)
            differences.append(paired(ours, theirs))
    families = [
        [each.p() for each in differences],
        [each.p_equivalent(margin) for each, margin in zip(differences, margins, strict=True)],
        [_p_not_worse(metric, *each) for each in zip(differences, margins, strict=True)],
    ]
    corrected = [column for ps in families for column in (ps, holm(ps))]
    return [
        Comparison(metric, row, other, with_reference, margin, difference, PValues(*tests))
        for (row, other, with_reference), margin, difference, tests in zip(
            compared, margins, differences, zip(*corrected, strict=True), strict=True
        )
    ]


def _p_not_worse(metric: Metric, differences: PairedDifferences, margin: float) -> float:
    if metric.better == "lower":
        return differences.p(margin, "less")
    return differences.p(-margin, "greater")


def _pairs(rows: Sequence[Row], method: str) -> Iterator[Pair]:
    """Each two rows that are compared, once."""
    seen = set()
    by_key = {row.key: row for row in rows}
    for row in rows:
        other = by_key.get((method, 0.0 if method == DENSE else row.sparsity))
        if other and row.method != method:
            seen.add(frozenset({row.key, other.key}))
            yield row, other, True
    for row, other in combinations(rows, 2):
        if row.sparsity == other.sparsity and frozenset({row.key, other.key}) not in seen:
            yield row, other, False
