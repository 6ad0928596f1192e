"""Tests of differences that are paired over seeds, by Student's t distribution."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev
from typing import Literal

LEVEL = 0.05
"""Probability of a wrong verdict that is accepted, over a whole family of tests."""
SEEDS_OF_A_TEST = 3
"""Number of shared seeds from which on a test gives a verdict."""

Direction = Literal["two-sided", "less", "greater"]


@dataclass(frozen=True)
class PairedDifferences:
    """Scores of one row minus those of another, over the seeds that both have."""

    values: tuple[float, ...]
    """A difference per shared seed, in the order of the seeds."""
    rounding: float
    """Spread of the values below which they count as equal."""

    @property
    def seeds(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float:
        """Mean difference; NaN without a shared seed."""
        return fmean(self.values) if self.values else math.nan

    @property
    def spread(self) -> bool:
        """Whether there is a spread, which is what tests measure noise by: there is none with
        fewer than two seeds, and where all differences are equal."""
        return self.seeds > 1 and max(self.values) - min(self.values) > self.rounding

    @property
    def interval(self) -> tuple[float, float]:
        """Ends of the mean's 95 % interval; NaN without a spread."""
        from scipy.special import stdtrit  # half a second, if nothing is compared

        half = float(stdtrit(self.seeds - 1, 1 - LEVEL / 2)) * self._error
        return self.mean - half, self.mean + half

    def p(self, than: float = 0, direction: Direction = "two-sided") -> float:
        """The p-value of the t-test whose null hypothesis is that the true mean is ``than`` (or
        lies beyond it, where a ``direction`` is asked for); NaN without a spread, or ``than``."""
        from scipy.special import stdtr

        t, freedom = (self.mean - than) / self._error, self.seeds - 1
        if direction == "two-sided":
            return 2 * float(stdtr(freedom, -abs(t)))
        return float(stdtr(freedom, t if direction == "less" else -t))

    @cached_property
    def _error(self) -> float:
        """Standard error of the mean; NaN without a spread."""
        return stdev(self.values) / math.sqrt(self.seeds) if self.spread else math.nan

    def p_equivalent(self, bound: float) -> float:
        """The p-value of two one-sided tests (TOST; Schuirmann 1987) of whether the true mean lies
        within ± ``bound``; NaN without a spread."""
        above, below = self.p(-bound, "greater"), self.p(bound, "less")
        return max(above, below)


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> PairedDifferences:
    """Ours − theirs, both by seed, over the seeds that both have."""
    seeds = sorted(ours.keys() & theirs.keys())
    largest = max((abs(each[seed]) for each in (ours, theirs) for seed in seeds), default=0.0)
    return PairedDifferences(tuple(ours[seed] - theirs[seed] for seed in seeds), 1e-9 * largest)


def holm(ps: Sequence[float]) -> list[float]:
    """The p-values of a family of tests, corrected for their number (Holm 1979), in their order.

    NaN is no test: it stays NaN, and does not count.
    """
    corrected = [math.nan] * len(ps)
    largest = 0.0
    tests = sorted((p, index) for index, p in enumerate(ps) if not math.isnan(p))
    for rank, (p, index) in enumerate(tests):
        largest = max(largest, min(1.0, (len(tests) - rank) * p))
        corrected[index] = largest
    return corrected
