"""What a table's scores mean: what real images score, what distorted ones do, and how much is
noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean, variance

from dstbench.records import Floor, Record
from dstbench.report.leaderboard import Table
from dstbench.report.rows import FID, METRICS, Row

SHOWN = METRICS[:2]
"""The scores of a floor that stand below a table; its record has all of them."""


def warnings(table: Table) -> Iterator[str]:
    """What stands at the head of a table whose dense row scores worse than distorted images."""
    if table.dense is None:
        return
    scores = table.dense.scores(FID).values()
    beaten = [
        f"{floor.name}: {floor.scores.fid:.2f}"
        for floor in _floors(table)
        if floor.kind == "distorted"
        and scores
        and floor.scores.fid is not None
        and floor.scores.fid < fmean(scores)
    ]
    if beaten:
        yield (
            f"By FID, the dense row ({fmean(scores):.2f}) is worse than distorted real images "
            f"({'; '.join(beaten)}): the differences below say little of the quality of images."
        )


def floor_notes(table: Table) -> Iterator[str]:
    """Scores of images that no model has generated, and how near samples are to training images."""
    if floors := _floors(table):
        lines = "; ".join(_in_words(floor) for floor in floors)
        yield f"Images that no model has generated, under the same protocol: {lines}."
    if near := [(row, found) for row in table.rows if (found := _nearest(row)) is not None]:
        rows = ", ".join(f"{_label(row)} {ratio:.2f}" for row, ratio in near)
        yield (
            "Nearest training image: median distance of samples in the extractor's features ÷ that "
            f"of training images to their nearest others; far below 1 is memorised: {rows}."
        )


def noise_notes(table: Table) -> Iterator[str]:
    """How much of a FID is noise of sampling, and how much of training."""
    done = [record for row in table.rows for record in row.done]
    parts = []
    by_noise = [fids for record in done if len(fids := _fids(record)) > 1]
    if by_noise:
        parts.append(
            f"standard deviation over {max(map(len, by_noise))} noises that the same weights are "
            f"sampled from {_pooled(by_noise):.3g}"
        )
    by_seed = [list(row.scores(FID).values()) for row in table.rows]
    by_seed = [fids for fids in by_seed if len(fids) > 1]
    if by_seed and parts:
        parts.append(f"over training seeds {_pooled(by_seed):.3g}")
    intervals = [record.fid_interval for record in done if record.fid_interval]
    if intervals:
        half = fmean((each.high - each.low) / 2 for each in intervals)
        parts.append(
            f"95 % interval of a cell's FID ± {half:.3g} on average ({intervals[0].resamples} "
            "bootstrap resamples of its samples, whose mean is shifted to the FID)"
        )
    if parts:
        yield f"Noise of FID: {', '.join(parts)}."


def _floors(table: Table) -> Sequence[Floor]:
    """The floors of the first record that has any: all of a table are under one protocol."""
    return next((record.floors for record in table.records if record.floors), ())


def _in_words(floor: Floor) -> str:
    scores = [
        f"{metric.title} {value:.{metric.decimals}f}"
        for metric in SHOWN
        if (value := floor.scores.get(metric.field)) is not None
    ]
    return f"{floor.name} ({floor.images:,}): {', '.join(scores)}"


def _nearest(row: Row) -> float | None:
    """Distance to training images ÷ the usual one, the mean over a row's cells."""
    ratios = [
        record.nearest.samples / record.nearest.training
        for record in row.done
        if record.nearest and record.nearest.training
    ]
    return fmean(ratios) if ratios else None


def _label(row: Row) -> str:
    return f"{row.method} (S = {row.sparsity:g})" if row.sparsity else row.method


def _fids(record: Record) -> list[float]:
    return [each.fid for each in record.scores_by_noise if each.fid is not None]


def _pooled(groups: Sequence[Sequence[float]]) -> float:
    """The standard deviation within groups, pooled by degrees of freedom."""
    squares = sum(variance(group) * (len(group) - 1) for group in groups)
    freedom = sum(len(group) - 1 for group in groups)
    return float((squares / freedom) ** 0.5)
