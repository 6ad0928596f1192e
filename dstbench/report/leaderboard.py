"""The leaderboard in numbers: which cells may be compared, and how they compare."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import stdev
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.stats import ttest_rel

from dstbench.cache import canonical
from dstbench.cell import DENSE, Cell
from dstbench.errors import StoreError
from dstbench.grid.variants import distinctions
from dstbench.records import Protocol, Record
from dstbench.report.costs import counts, mean, sizes, sparsities, times


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
        return {s: float(v) for s, v in scores.items() if v is not None and np.isfinite(v)}


@dataclass(frozen=True)
class Table:
    """The rows that may be compared: one task, under one protocol."""

    task: str
    variant: str
    """What sets this table apart from others of the same task; empty where there are none."""
    rows: tuple[Row, ...]

    @property
    def heading(self) -> str:
        return f"{self.task} ({self.variant})" if self.variant else self.task

    @property
    def records(self) -> list[Record]:
        return [record for row in self.rows for record in row.records]

    @property
    def skipped(self) -> bool:
        """Whether there is nothing to tell of it but why its cells were skipped."""
        return all(record.status == "skipped" for record in self.records)

    @property
    def protocol(self) -> Protocol | None:
        return next((record.protocol for record in self.records if record.protocol), None)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The scores that it has columns for."""
        others = self.protocol.others if self.protocol else ()
        return (*METRICS, *(Metric(q.name, q.title, q.better, q.decimals) for q in others))

    @property
    def dense(self) -> Row | None:
        return next((row for row in self.rows if row.sparsifier == DENSE), None)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One line per row; :func:`leaderboard` explains the columns."""
        return pd.DataFrame([self._line(row) for row in self.rows])

    def _line(self, row: Row) -> dict[str, Any]:
        protocol = self.protocol.model_dump() if self.protocol else {}
        return {
            "task": self.task,
            "variant": self.variant,
            "method": row.method,
            "sparsity": row.sparsity,
            **sparsities(row.done),
            "seeds": len(row.done),
            "failed": len(row.unfinished) - len(row.skipped),
            "skipped": len(row.skipped),
            **{key: value for metric in self.metrics for key, value in self._scores(row, metric)},
            **counts(row.done),
            **times(row.done),
            **sizes(row.done),
            **{field: protocol.get(field) for field in Protocol.model_fields if field != "others"},
            "machine": "; ".join(machines(row.done)),
        }

    def _scores(self, row: Row, metric: Metric) -> Iterator[tuple[str, float]]:
        scores = row.scores(metric)
        dense = self.dense.scores(metric) if self.dense else {}
        difference, p = paired_difference(scores, dense)
        yield f"{metric.field}_mean", mean(scores.values())
        yield f"{metric.field}_std", stdev(scores.values()) if len(scores) > 1 else math.nan
        yield f"{metric.field}_n", len(scores)
        yield f"{metric.field}_difference", difference
        yield f"{metric.field}_p", p


def tables(records: Sequence[Record]) -> list[Table]:
    """The records as tables, one per task and protocol.

    Tasks, and the methods within each, stand in the order in which the records first name them,
    dense first; sparsities ascend. A failed cell has no protocol, and goes with the finished cells
    of the same settings.

    Raises:
        StoreError: there are no records, or two of the same cell.
    """
    if not records:
        raise StoreError("there is no record to make a leaderboard of: run the benchmark first")
    ids = [record.cell.id for record in records]
    if repeated := sorted({id for id in ids if ids.count(id) > 1}):
        raise StoreError(f"a cell has one record, but there are more of {', '.join(repeated)}")

    tasks: dict[str, list[list[Record]]] = {}
    for group in _comparable(records):
        tasks.setdefault(group[0].cell.task, []).append(group)
    return [
        Table(task, variant, tuple(_rows(group)))
        for task, groups in tasks.items()
        for group, variant in zip(
            groups, distinctions([_circumstances(group) for group in groups]), strict=True
        )
    ]


def leaderboard(records: Sequence[Record]) -> pd.DataFrame:
    """One line per task, method and sparsity: numbers only, at full precision.

    A task whose cells were all skipped has none.

    Of every score (``fid``, ``kid``, ``inception_score``, ``precision``, ``recall``) there are
    ``_mean``, ``_std`` (sample standard deviation, ddof = 1) and ``_n`` over the seeds whose cell
    finished, and ``_difference`` and ``_p`` as :func:`paired_difference` to dense gives them.

    ``sparsity`` is what was asked for; ``final_sparsity`` is the fraction of the sparsifiable
    weights that were zero at the end of the training, ``mean_sparsity`` the same averaged over its
    steps, ``whole_model_sparsity`` the fraction of all parameters at the end.

    Parameters, FLOPs and sizes (bytes) are means over seeds; ``_ratio`` is relative to the same
    network without masks. So are ``step_time`` and ``sample_time``, measured by each cell against
    its dense twin: the mean of the cells' ratios, from ``_low`` to ``_high``, which cover the 95 %
    intervals of all of them, and ``_clock``, of whose time they are. ``update_time`` is what a
    topology update takes, in dense steps, ``update_time_per_step`` the same spread over the steps
    of the training. ``training_step_seconds`` and ``sample_seconds`` are of cells that ran apart:
    there is no ratio of them. What is not known is NaN.

    Raises:
        StoreError: there are no records, or two of the same cell.
    """
    found = tables(records)
    frames = [table.frame for table in found if not table.skipped]
    return pd.concat(frames, ignore_index=True) if frames else found[0].frame.head(0)


def paired_difference(ours: Mapping[int, float], dense: Mapping[int, float]) -> tuple[float, float]:
    """Mean of ours − dense over the seeds both have, and the p-value of the paired t-test.

    The test is two-sided. Its p-value is NaN with fewer than two common seeds, and where all
    differences are equal: their spread, which the test measures noise by, is then unknown.
    """
    seeds = sorted(ours.keys() & dense.keys())
    if not seeds:
        return math.nan, math.nan
    a = np.array([ours[seed] for seed in seeds])
    b = np.array([dense[seed] for seed in seeds])
    differences = a - b
    rounding = 1e-9 * max(np.abs(a).max(), np.abs(b).max())
    p = math.nan if np.ptp(differences) <= rounding else float(ttest_rel(a, b).pvalue)
    return float(differences.mean()), p


def machines(records: Iterable[Record]) -> list[str]:
    """The machines that ran the cells, in words, each once."""
    return list(dict.fromkeys(record.environment.machine for record in records))


def _comparable(records: Sequence[Record]) -> list[list[Record]]:
    """Records grouped by all that must be equal for a fair comparison."""
    protocols: dict[str, Protocol] = {}
    for record in records:
        if record.protocol:
            protocols.setdefault(canonical(_conditions(record.cell)), record.protocol)
    groups: dict[tuple[str, Protocol | None], list[Record]] = {}
    for record in records:
        conditions = canonical(_conditions(record.cell))
        protocol = record.protocol or protocols.get(conditions)
        groups.setdefault((conditions, protocol), []).append(record)
    return list(groups.values())


def _conditions(cell: Cell) -> dict[str, Any]:
    """What determines a cell's result, but for what a table compares."""
    compared = {"sparsifier", "sparsity", "seed", "sparsifier_settings"}
    conditions = {key: value for key, value in cell.identity.items() if key not in compared}
    versions = {kind: version for kind, version in cell.versions.items() if kind != "sparsifier"}
    return conditions | {"versions": versions}


def _method(cell: Cell) -> dict[str, Any]:
    """What sets a sparsifier apart from others of its name."""
    versions = {kind: version for kind, version in cell.versions.items() if kind == "sparsifier"}
    return {"settings": cell.sparsifier_settings, "versions": versions}


def _circumstances(group: Sequence[Record]) -> dict[str, Any]:
    """All that a group of comparable records has in common."""
    protocol = next((record.protocol.model_dump() for record in group if record.protocol), {})
    if protocol:
        protocol["weights_hash"] = protocol["weights_hash"][:12]
        for follows in ("kid_subset_size", "inception_score_splits", "others"):  # from the rest
            del protocol[follows]
    told = {name: value for name, value in protocol.items() if value is not None}
    return _conditions(group[0].cell) | {"protocol": told}


def _rows(records: Sequence[Record]) -> list[Row]:
    methods: dict[str, dict[str, dict[str, Any]]] = {DENSE: {}}
    cells: dict[tuple[str, str, float], list[Record]] = {}
    for record in records:
        cell = record.cell
        method = canonical(_method(cell))
        methods.setdefault(cell.sparsifier, {})[method] = _method(cell)
        cells.setdefault((cell.sparsifier, method, cell.sparsity), []).append(record)
    return [
        Row(
            f"{sparsifier} ({distinction})" if distinction else sparsifier,
            sparsifier,
            sparsity,
            tuple(cells[sparsifier, method, sparsity]),
        )
        for sparsifier, variants in methods.items()
        for method, distinction in zip(variants, distinctions(list(variants.values())), strict=True)
        for sparsity in sorted(s for name, of, s in cells if (name, of) == (sparsifier, method))
    ]
