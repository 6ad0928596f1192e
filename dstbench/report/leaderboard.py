"""The leaderboard in numbers: which cells may be compared, and how they compare."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import stdev
from typing import Any

import pandas as pd

from dstbench.cache import canonical
from dstbench.cell import DENSE, Cell
from dstbench.errors import ConfigError, StoreError, did_you_mean
from dstbench.grid.variants import distinctions
from dstbench.records import Protocol, Record
from dstbench.report.comparisons import AGAINST_DENSE, COLUMNS, Comparison, Reference, compare
from dstbench.report.costs import counts, mean, sizes, sparsities, times
from dstbench.report.rows import METRICS, Metric, Row
from dstbench.settings import TargetSettings


@dataclass(frozen=True)
class Table:
    """The rows that may be compared: one task, under one protocol."""

    task: str
    variant: str
    """What sets this table apart from others of the same task; empty where there are none."""
    rows: tuple[Row, ...]
    reference: Reference = AGAINST_DENSE
    """What the rows are compared with."""
    targets: tuple[TargetSettings, ...] = ()
    """Published scores of the task."""

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
    def comparisons(self) -> list[Comparison]:
        """All comparisons of all scores."""
        return [e for metric in self.metrics for e in compare(self.rows, metric, self.reference)]

    def with_reference(self, metric: Metric) -> Mapping[tuple[str, float], Comparison]:
        """The comparisons of a score with the reference, by :attr:`Row.key`."""
        return self._with_reference.get(metric, {})

    @cached_property
    def _with_reference(self) -> dict[Metric, dict[tuple[str, float], Comparison]]:
        found: dict[Metric, dict[tuple[str, float], Comparison]] = {}
        for each in self.comparisons:
            if each.with_reference:
                found.setdefault(each.metric, {})[each.row.key] = each
        return found

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One line per row; :func:`leaderboard` explains the columns."""
        return pd.DataFrame([self.line(row) for row in self.rows])

    def line(self, row: Row) -> dict[str, Any]:
        """The numbers of a row; :func:`leaderboard` explains them."""
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
            "steps": mean(r.steps for r in row.done if r.steps is not None),
            **{key: value for metric in self.metrics for key, value in self._scores(row, metric)},
            **counts(row.done),
            **times(row.done),
            **sizes(row.done),
            **{field: protocol.get(field) for field in Protocol.model_fields if field != "others"},
            "machine": "; ".join(machines(row.done)),
        }

    def _scores(self, row: Row, metric: Metric) -> Iterator[tuple[str, float]]:
        scores = row.scores(metric)
        compared = self.with_reference(metric).get(row.key)
        low, high = compared.differences.interval if compared else (math.nan, math.nan)
        yield f"{metric.field}_mean", mean(scores.values())
        yield f"{metric.field}_std", stdev(scores.values()) if len(scores) > 1 else math.nan
        yield f"{metric.field}_n", len(scores)
        yield f"{metric.field}_difference", compared.differences.mean if compared else math.nan
        yield f"{metric.field}_low", low
        yield f"{metric.field}_high", high
        yield f"{metric.field}_p", compared.tests.p if compared else math.nan
        yield f"{metric.field}_holm_p", compared.tests.holm_p if compared else math.nan


def tables(
    records: Sequence[Record],
    reference: Reference = AGAINST_DENSE,
    targets: Sequence[TargetSettings] = (),
) -> list[Table]:
    """The records as tables, one per task and protocol, each with the published scores of its task.

    Tasks, and the methods within each, stand in the order in which the records first name them,
    dense first; sparsities ascend. A failed cell has no protocol, and goes with the finished cells
    of the same settings.

    Raises:
        StoreError: there are no records, or two of the same cell.
        ConfigError: there is no method of the reference's name; dense may be missing.
    """
    if not records:
        raise StoreError("there is no record to make a leaderboard of: run the benchmark first")
    ids = Counter(record.cell.id for record in records)
    if repeated := sorted(id for id, count in ids.items() if count > 1):
        raise StoreError(f"a cell has one record, but there are more of {', '.join(repeated)}")

    tasks: dict[str, list[list[Record]]] = {}
    for group in _comparable(records):
        tasks.setdefault(group[0].cell.task, []).append(group)
    published = {
        task: tuple(each for each in targets if f"{each.model} on {each.dataset}" == task)
        for task in tasks
    }
    found = [
        Table(task, variant, tuple(_rows(group)), reference, published.get(task, ()))
        for task, groups in tasks.items()
        for group, variant in zip(
            groups, distinctions([_circumstances(group) for group in groups]), strict=True
        )
    ]
    methods = {row.method for table in found for row in table.rows}
    if reference.method not in methods | {DENSE}:
        raise ConfigError(
            f"nothing can be compared with '{reference.method}': no method of the leaderboard; "
            f"{did_you_mean(reference.method, methods)}"
        )
    return found


def leaderboard(records: Sequence[Record], reference: Reference = AGAINST_DENSE) -> pd.DataFrame:
    """One line per task, method and sparsity: numbers only, at full precision.

    A task whose cells were all skipped has none.

    Of every score (``fid``, ``kid``, ``inception_score``, ``precision``, ``recall``) there are
    ``_mean``, ``_std`` (sample standard deviation, ddof = 1) and ``_n`` over the seeds whose cell
    finished. To the reference (dense, unless another is given) there are ``_difference``, the mean
    of the paired differences over the seeds that both have, its 95 % interval from ``_low`` to
    ``_high``, ``_p`` of the two-sided paired t-test, and ``_holm_p``, the same corrected for the
    number of comparisons in the table: see :mod:`dstbench.report.comparisons`.

    ``sparsity`` is what was asked for; ``final_sparsity`` is the fraction of the sparsifiable
    weights that were zero at the end of the training, ``mean_sparsity`` the same averaged over its
    steps, ``whole_model_sparsity`` the fraction of all parameters at the end.

    ``steps`` is the number of optimizer steps, a mean over seeds: those of a budget of time differ.

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
    return leaderboard_frame(tables(records, reference))


def leaderboard_frame(found: Sequence[Table]) -> pd.DataFrame:
    """What :func:`leaderboard` is of the records of these tables, at least one."""
    frames = [table.frame for table in found if not table.skipped]
    return pd.concat(frames, ignore_index=True) if frames else found[0].frame.head(0)


def comparison_frame(
    records: Sequence[Record], reference: Reference = AGAINST_DENSE
) -> pd.DataFrame:
    """One line per score and two rows that are compared, at full precision: each row with the
    reference (``with_reference``), and methods with each other at the same sparsity.

    ``difference`` is the mean over the ``seeds`` that both have of ``method`` at ``sparsity`` minus
    ``against`` at ``against_sparsity``, from ``low`` to ``high`` its 95 % interval. ``p`` is of the
    two-sided paired t-test, ``equivalence_p`` of two one-sided tests of a difference within ±
    ``margin``, ``not_worse_p`` of a one-sided test of being worse by less than that; ``_holm_p``
    are the same, corrected by Holm's method: ``p`` over all comparisons of a score in a table, the
    others over those with the reference. ``mark`` is ▲, ▼ or ≈, as in the leaderboard. What cannot
    be tested is NaN.

    The errors raised are those of :func:`tables`.
    """
    return comparisons_of(tables(records, reference))


def comparisons_of(found: Sequence[Table]) -> pd.DataFrame:
    """What :func:`comparison_frame` is of the records of these tables."""
    lines = [
        {"table": table.heading} | each.line() for table in found for each in table.comparisons
    ]
    return pd.DataFrame(lines, columns=["table", *COLUMNS])


def machines(records: Iterable[Record]) -> list[str]:
    """The machines that ran the cells, in words, each once."""
    return list(dict.fromkeys(record.environment.machine for record in records))


def _comparable(records: Sequence[Record]) -> list[list[Record]]:
    """Records grouped by all that must be equal for a fair comparison."""
    protocols: dict[str, Protocol] = {}
    for record in records:
        if record.protocol:
            protocols.setdefault(record.cell.kin, record.protocol)
    groups: dict[tuple[str, Protocol | None], list[Record]] = {}
    for record in records:
        kin = record.cell.kin
        protocol = record.protocol or protocols.get(kin)
        groups.setdefault((kin, protocol), []).append(record)
    return list(groups.values())


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
    return group[0].cell.conditions | {"protocol": told}


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
