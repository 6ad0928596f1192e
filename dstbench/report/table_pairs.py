"""Tables of two results of a benchmark, and their rows, that are compared with each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any, TypeVar

from dstbench.cache import canonical
from dstbench.records import Record
from dstbench.report.comparisons import Comparison, compare_pairs
from dstbench.report.facts import differing, values
from dstbench.report.formatting import MISSING
from dstbench.report.leaderboard import Table
from dstbench.report.rows import Row

T = TypeVar("T")
Facts = dict[str, tuple[str, str]]
"""By name, what something is in the first and in the second results."""

COSTS = (
    "active_parameters", "inference_flops", "training_flops", "state_bytes", "model_bytes",
    "training_step_seconds", "sample_seconds",
    *(f"{what}_time_{part}" for what in ("step", "sample") for part in ("ratio", "low", "high")),
)  # fmt: skip
"""Columns of the leaderboard that say what a row has cost."""


@dataclass(frozen=True)
class TablePair:
    """A table of the first results, and the one of the second that it is compared with."""

    first: Table
    second: Table
    margin: float
    """The difference that would not matter, as a fraction of the first's mean score."""

    @cached_property
    def _matched(self) -> tuple[list[tuple[Row, Row]], list[Row], list[Row]]:
        return match(self.first.rows, self.second.rows, (_method, lambda row: row.key))

    @property
    def rows(self) -> list[tuple[Row, Row]]:
        """The same method at the same sparsity, of both."""
        return self._matched[0]

    @property
    def alone(self) -> tuple[list[Row], list[Row]]:
        """The rows that only the first has, and those that only the second has."""
        return self._matched[1:]

    @cached_property
    def differences(self) -> dict[str, Facts]:
        """Facts that differ, by what they are of."""
        old, new = [[r for pair in self.rows for r in pair[i].records] for i in (0, 1)]
        return {
            "Settings": _differing(map(_settings, old), map(_settings, new)),
            "Machines and versions": _differing(map(_environment, old), map(_environment, new)),
            "How samples were scored": _differing(
                [_protocol(self.first)], [_protocol(self.second)]
            ),
        }

    @property
    def scored_alike(self) -> bool:
        """Whether scores of the two may be compared."""
        return self.first.protocol == self.second.protocol

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Each score of each row of the second minus that of the first, where they were scored
        alike; a family of tests for each score."""
        metrics = self.second.metrics if self.scored_alike else ()
        pairs = [(new, old, True) for old, new in self.rows]
        return [each for metric in metrics for each in compare_pairs(pairs, metric, self.margin)]

    def costs(self, old: Row, new: Row) -> Iterator[tuple[str, float, float]]:
        """Each of :data:`COSTS` of a row, in the first and in the second."""
        was, now = self.first.line(old), self.second.line(new)
        yield from ((name, was[name], now[name]) for name in COSTS)


def shared_means(compared: Comparison) -> tuple[float, float]:
    """The mean scores of the first and of the second over the seeds that both have."""
    old, new = compared.other.scores(compared.metric), compared.row.scores(compared.metric)
    seeds = old.keys() & new.keys()
    return fmean(old[seed] for seed in seeds), fmean(new[seed] for seed in seeds)


def match(
    old: Sequence[T], new: Sequence[T], keys: Sequence[Callable[[T], object]]
) -> tuple[list[tuple[T, T]], list[T], list[T]]:
    """Pairs that agree by one of these keys, by the first ones before the others; and those that
    are left of either."""
    partners: dict[int, T] = {}
    rest = list(new)
    for key in keys:
        for i, each in enumerate(old):
            found = next((other for other in rest if key(other) == key(each)), None)
            if i not in partners and found is not None:
                partners[i] = found
                rest = [other for other in rest if other is not found]
    pairs = [(old[i], partners[i]) for i in sorted(partners)]
    return pairs, [each for i, each in enumerate(old) if i not in partners], rest


def _method(row: Row) -> object:
    cell = row.records[0].cell
    settings = (cell.sparsifier_settings, cell.versions.get("sparsifier", ""))
    return row.sparsifier, row.sparsity, canonical(settings)


def _settings(record: Record) -> dict[str, Any]:
    """Those of a cell; of its sparsifier under the sparsifier's name."""
    cell = record.cell
    told = {key: value for key, value in cell.conditions.items() if isinstance(value, dict)}
    version = cell.versions.get("sparsifier")
    told["versions"] |= {f"sparsifier {cell.sparsifier}": version} if version else {}
    return told | {"sparsifiers": {cell.sparsifier: cell.sparsifier_settings}}


def _environment(record: Record) -> dict[str, Any]:
    return record.environment.model_dump(mode="json")


def _protocol(table: Table) -> dict[str, Any]:
    return table.protocol.model_dump(mode="json") if table.protocol else {}


def _differing(old: Iterable[Mapping[str, Any]], new: Iterable[Mapping[str, Any]]) -> Facts:
    return differing(values(old), values(new), MISSING)
