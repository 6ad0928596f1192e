"""What differs between two results of a benchmark: settings, versions, scores, costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dstbench.report.results import Results, load_results

if TYPE_CHECKING:
    import pandas as pd

    from dstbench.report.leaderboard import Table
    from dstbench.report.table_pairs import TablePair


def compare(first: str | Path, second: str | Path, *, margin: float | None = None) -> TwoResults:
    """Compare two results folders: what differs in settings, versions, scores and costs.

    Args:
        first: results of a benchmark, such as ``results/quickstart``.
        second: other results, of the same benchmark or a changed one.
        margin: the difference that would not matter, as a fraction of the first's mean score; by
            default as the first benchmark said when it was last run.

    Raises:
        StoreError: where one of the folders has no records.
    """
    ours, theirs = load_results(first, margin=margin), load_results(second)
    same = ours.name == theirs.name
    names = (str(first), str(second)) if same else (ours.name, theirs.name)
    return TwoResults(ours, theirs, names)


class TwoResults:
    """What differs between two results of a benchmark."""

    def __init__(self, first: Results, second: Results, names: tuple[str, str]) -> None:
        self.first, self.second = first, second
        self.names = names
        """What the two are called."""

    @cached_property
    def _matched(self) -> tuple[list[tuple[Table, Table]], list[Table], list[Table]]:
        from dstbench.report.table_pairs import match

        keys = (
            lambda table: (table.records[0].cell.kin, table.protocol),
            lambda table: (table.task, table.protocol),
            lambda table: table.task,
        )
        return match(self.first.tables, self.second.tables, keys)

    @cached_property
    def pairs(self) -> list[TablePair]:
        """The tables of the two that are compared: of one task, as alike as there are."""
        from dstbench.report.table_pairs import TablePair

        margin = self.first.reference.margin
        return [TablePair(old, new, margin) for old, new in self._matched[0]]

    @property
    def alone(self) -> tuple[list[Table], list[Table]]:
        """The tables that only the first has, and those that only the second has."""
        return self._matched[1:]

    @property
    def cells(self) -> dict[str, int]:
        """Numbers of cells: ``first``, ``second``, those in ``both``, and of these the ``same``,
        with equal scores."""
        old, new = ({r.cell.id: r for r in each.records} for each in (self.first, self.second))
        both = [(old[name], new[name]) for name in old if name in new]
        same = sum(a.status == b.status and a.scores == b.scores for a, b in both)
        return {"first": len(old), "second": len(new), "both": len(both), "same": same}

    @property
    def settings(self) -> pd.DataFrame:
        """One row per setting, version, or fact of the protocol that differs: ``table``, ``kind``,
        ``name``, and what it is in the ``first`` and in the ``second``."""
        return _frame(
            ["table", "kind", "name", "first", "second"],
            [
                (pair.second.heading, kind, name, *both)
                for pair in self.pairs
                for kind, found in pair.differences.items()
                for name, both in found.items()
            ],
        )

    @property
    def scores(self) -> pd.DataFrame:
        """One row per score and row of both: the means over shared seeds, their paired
        ``difference`` (second minus first) with its 95 % interval and Holm-corrected tests, and the
        ``verdict`` in words."""
        from dstbench.report.table_pairs import shared_means
        from dstbench.report.verdicts import in_words

        rows = []
        for pair in self.pairs:
            for each in pair.comparisons:
                line = each.line()
                kept = {name: line[name] for name in _KEPT}
                means = dict(zip(("first", "second"), shared_means(each), strict=True))
                rows.append(
                    {"table": pair.second.heading, **kept, **means, "verdict": in_words(each)}
                )
        return _frame(["table", *_KEPT, "first", "second", "verdict"], rows)

    @property
    def costs(self) -> pd.DataFrame:
        """One row per row of both and kind of cost, in the units of the leaderboard's data: what it
        is in the ``first`` and the ``second``."""
        return _frame(
            ["table", "method", "sparsity", "cost", "first", "second"],
            [
                (pair.second.heading, new.method, new.sparsity, cost, was, now)
                for pair in self.pairs
                for (old, new) in pair.rows
                for cost, was, now in pair.costs(old, new)
            ],
        )

    def as_dict(self) -> dict[str, Any]:
        """All of it as what JSON can say; what is not known is ``None``."""
        parts = {"settings": self.settings, "scores": self.scores, "costs": self.costs}
        frames = {name: frame.astype(object) for name, frame in parts.items()}
        return {
            "names": dict(zip(("first", "second"), self.names, strict=True)),
            "cells": self.cells,
            **{n: each.where(each.notna(), None).to_dict("records") for n, each in frames.items()},
            "alone": {
                side: {
                    "tables": [table.heading for table in self.alone[i]],
                    "rows": [list(row.key) for pair in self.pairs for row in pair.alone[i]],
                }
                for i, side in enumerate(("first", "second"))
            },
        }

    def text(self) -> str:
        """All of it in markdown."""
        from dstbench.report.two_results_text import render

        statuses = _statuses(self.first), _statuses(self.second)
        return render(self.names, statuses, self.cells, self.pairs, self.alone)


_KEPT = (
    "score", "method", "sparsity", "seeds", "difference", "low", "high", "margin", "p", "holm_p",
    "equivalence_holm_p",
)  # fmt: skip


def _statuses(results: Results) -> str:
    """How many of the cells have ended how, in words."""
    counts = Counter(record.status for record in results.records)
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def _frame(columns: Sequence[str], rows: Sequence[Any]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=list(columns))
