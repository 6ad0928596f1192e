"""Scores, and the rows of a leaderboard: cells that differ in nothing but their seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from dstbench.records import Record


@dataclass(frozen=True)
class Metric:
    """A score as the leaderboard sees it; ``field`` is its name in :class:`records.Scores`."""

    field: str
    title: str
    better: Literal["lower", "higher"]
    decimals: int


METRICS = (
    Metric("fid", "FID", "lower", 2),
    Metric("kid", "KID", "lower", 4),
    Metric("inception_score", "IS", "higher", 2),
    Metric("precision", "precision", "higher", 3),
    Metric("recall", "recall", "higher", 3),
)
FID = METRICS[0]
"""The main score: what plots show, and what a recommendation is made by."""


@dataclass(frozen=True)
class Row:
    """The cells that differ in nothing but their seed."""

    method: str
    """The sparsifier, with those of its settings that the benchmark varies, and its version where
    there are records of several."""
    sparsifier: str
    sparsity: float
    records: tuple[Record, ...]

    @property
    def key(self) -> tuple[str, float]:
        """What tells the row from the others of its table."""
        return self.method, self.sparsity

    @property
    def done(self) -> list[Record]:
        return [record for record in self.records if record.status == "done"]

    @property
    def unfinished(self) -> list[Record]:
        return [record for record in self.records if record.status != "done"]

    @property
    def skipped(self) -> list[Record]:
        return [record for record in self.records if record.status == "skipped"]

    def scores(self, metric: Metric) -> dict[int, float]:
        """Finite scores of the finished cells, by seed."""
        scores = {r.cell.seed: r.scores.get(metric.field) for r in self.done if r.scores}
        return {s: float(v) for s, v in scores.items() if v is not None and math.isfinite(v)}
