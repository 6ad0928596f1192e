"""What others have published of a table's task."""

from __future__ import annotations

from collections.abc import Iterator

from dstbench.report.leaderboard import Table
from dstbench.settings import TargetSettings


def published(table: Table) -> Iterator[str]:
    """The published scores of a table's task: a line for each source and score."""
    lines: dict[tuple[str, str, str | None], list[TargetSettings]] = {}
    for target in table.targets:
        lines.setdefault((target.score, target.source, target.scored_by), []).append(target)
    titles = {metric.field: metric.title for metric in table.metrics}
    for (score, source, by), targets in lines.items():
        scored = f"; scored by {by}" if by else ""
        figures = ", ".join(map(_in_words, targets))
        yield (
            f"Published: {titles.get(score, score)}, {figures} ({source}{scored}); not under this "
            "table's protocol."
        )


def _in_words(target: TargetSettings) -> str:
    sparsity = f" (S = {target.sparsity:g})" if target.sparsity else ""
    spread = f" ± {target.spread:g}" if target.spread is not None else ""
    return f"{target.sparsifier}{sparsity} {target.mean:g}{spread}"
