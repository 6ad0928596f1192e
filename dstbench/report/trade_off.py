"""FID against measured time, with the Pareto front: one panel per table, one point per row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dstbench.cell import DENSE
from dstbench.report.leaderboard import Table
from dstbench.report.panels import add_legend, colours_of, finish, markers_of, panels

What = Literal["step", "sample"]


def fid_vs_time(tables: Sequence[Table], what: What) -> Figure | None:
    """The plot, or ``None`` where no sparse row has both an FID and a measured time.

    Time is per optimizer step or per sample, relative to the dense twin, which is at 1. Points are
    means over seeds with the interval of the time and one sample standard deviation of the FID; the
    sparsity stands beside them.
    """
    found = [(table, _points(table, what)) for table in tables]
    found = [(table, points) for table, points in found if (points["method"] != DENSE).any()]
    if not found:
        return None
    methods = list(dict.fromkeys(method for _, points in found for method in points["method"]))
    sparse = [method for method in methods if method != DENSE]
    colours = {DENSE: (0.35, 0.35, 0.35), **colours_of(sparse)}
    markers = {DENSE: "*", **markers_of(sparse)}
    figure, every = panels(len(found))
    for axes, (table, points) in zip(every, found, strict=True):
        _add_front(axes, points)
        for method, of_method in points.groupby("method", sort=False):
            axes.errorbar(
                of_method["time"],
                of_method["fid"],
                xerr=(of_method["time"] - of_method["low"], of_method["high"] - of_method["time"]),
                yerr=of_method["spread"],
                color=colours[str(method)],
                marker=markers[str(method)],
                markersize=7,
                linestyle="none",
                capsize=3,
                label=str(method),
            )
        for point in points[points["method"] != DENSE].itertuples():
            axes.annotate(
                f"{point.sparsity:g}", (point.time, point.fid), (5, 4), fontsize=8,
                textcoords="offset points",
            )  # fmt: skip
        finish(axes, table, f"measured time per {what} ÷ dense")
        axes.set_xlim(left=0)
    add_legend(figure)
    return figure


def pareto_front(points: pd.DataFrame) -> pd.DataFrame:
    """The points (columns ``time`` and ``fid``) that no other is better than in one of the two and
    at least as good in the other, by ascending time."""
    best = points.sort_values(["time", "fid"])
    return best[best["fid"] < best["fid"].cummin().shift(fill_value=float("inf"))]


def _points(table: Table, what: What) -> pd.DataFrame:
    """One line per row that has an FID and a time: ``method``, ``sparsity``, ``fid`` and its
    ``spread``, ``time`` with its interval (``low``, ``high``)."""
    name = f"{what}_time"
    points = pd.DataFrame(
        {
            "method": table.frame["method"],
            "sparsity": table.frame["sparsity"],
            "fid": table.frame["fid_mean"],
            "spread": table.frame["fid_std"].fillna(0.0),
            "time": table.frame[f"{name}_ratio"],
            "low": table.frame[f"{name}_low"],
            "high": table.frame[f"{name}_high"],
        }
    )
    dense = points["method"] == DENSE
    points.loc[dense, ["time", "low", "high"]] = 1.0
    return points.dropna()


def _add_front(axes: Axes, points: pd.DataFrame) -> None:
    front = pareto_front(points)
    axes.step(
        front["time"], front["fid"], where="post", color="0.6", linewidth=1.2, linestyle="--",
        zorder=1, label="Pareto front",
    )  # fmt: skip
    axes.plot(
        front["time"], front["fid"], "o", color="0.6", markersize=14, fillstyle="none", zorder=1
    )
