"""FID against sparsity: one panel per table, one line per method, dense as the reference."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dstbench.cell import DENSE
from dstbench.report.leaderboard import Table
from dstbench.report.panels import add_legend, colours_of, dodges, finish, markers_of, panels
from dstbench.report.rows import FID


def fid_vs_sparsity(tables: Sequence[Table]) -> Figure | None:
    """The plot, or ``None`` where no sparse cell has an FID.

    Points are means over seeds, bars one sample standard deviation to either side. Methods stand
    side by side at a sparsity.
    """
    found = [(table, scores) for table in tables if len(scores := _sparse_scores(table))]
    if not found:
        return None
    methods = list(dict.fromkeys(method for _, scores in found for method in scores["method"]))
    colours, markers = colours_of(methods), markers_of(methods)
    figure, every = panels(len(found))
    for axes, (table, scores) in zip(every, found, strict=True):
        scores["x"] = scores["sparsity"] + dodges(scores["sparsity"], scores["method"], methods)
        for method, of_method in scores.groupby("method", sort=False):
            points = of_method.groupby("x")["FID"].agg(["mean", "std"]).fillna({"std": 0.0})
            axes.errorbar(
                points.index,
                points["mean"],
                yerr=points["std"],
                color=colours[str(method)],
                marker=markers[str(method)],
                markersize=7,
                capsize=3,
                label=str(method),
            )
        _add_dense(axes, table)
        sparsities = sorted(set(scores["sparsity"]))
        axes.set_xticks(sparsities, [f"{sparsity:g}" for sparsity in sparsities])
        if len(sparsities) == 1:
            axes.margins(x=1)  # its methods stand together in the middle
        finish(axes, table, "sparsity S of the sparsifiable weights")
    add_legend(figure)
    return figure


def _sparse_scores(table: Table) -> pd.DataFrame:
    """FID of every finished sparse cell: columns ``method``, ``sparsity``, ``FID``."""
    return pd.DataFrame(
        [
            {"method": row.method, "sparsity": row.sparsity, "FID": fid}
            for row in table.rows
            if row.sparsifier != DENSE
            for fid in row.scores(FID).values()
        ]
    )


def _add_dense(axes: Axes, table: Table) -> None:
    fids = list(table.dense.scores(FID).values()) if table.dense else []
    if not fids:
        return
    mean = fmean(fids)
    axes.axhline(mean, color="0.35", linestyle="--", linewidth=1.2, zorder=1, label=DENSE)
    if len(fids) > 1:
        spread = stdev(fids)
        axes.axhspan(mean - spread, mean + spread, color="0.35", alpha=0.12, linewidth=0, zorder=0)
