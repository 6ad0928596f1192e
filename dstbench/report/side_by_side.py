"""What one cell scores in several ways, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import stdev

from dstbench.grid.variants import distinctions
from dstbench.records import Record
from dstbench.report.formatting import MISSING
from dstbench.report.rows import METRICS, Metric


def side_by_side(records: Sequence[Record]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Header and body of a table of text: a line for each record of a cell, its own first, with
    what sets it apart, and a column for each score: of several noises, the mean ± their sample
    standard deviation."""
    protocols = [record.protocol for record in records if record.protocol]
    others = [
        Metric(each.name, each.title, each.better, each.decimals)
        for protocol in protocols
        for each in protocol.others
    ]
    metrics = [
        metric
        for metric in dict.fromkeys((*METRICS, *others))
        if any(record.scores and record.scores.get(metric.field) is not None for record in records)
    ]
    ways = distinctions([record.cell.settings for record in records])
    body = [
        (way or "as the benchmark says", *(_score(record, metric) for metric in metrics))
        for way, record in zip(ways, records, strict=True)
    ]
    return [records[0].cell.id, *(metric.title for metric in metrics)], body


def _score(record: Record, metric: Metric) -> str:
    value = record.scores.get(metric.field) if record.scores else None
    if value is None:
        return MISSING
    text = f"{value:.{metric.decimals}f}"
    found = [each.get(metric.field) for each in record.scores_by_noise]
    known = [each for each in found if each is not None]
    return f"{text} ± {stdev(known):.{metric.decimals}f}" if len(known) > 1 else text
