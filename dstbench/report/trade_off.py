"""FID against cost, with the Pareto front: one panel per table, one point per row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dstbench.cell import DENSE
from dstbench.report.leaderboard import Table
from dstbench.report.panels import add_legend, colours_of, dodges, finish, markers_of, panels

What = Literal["flops", "step", "sample"]
Against = What | Literal["sparsity"]
_LABELS: dict[What, str] = {
    "flops": "theoretical FLOPs of a denoiser call ÷ dense",
    "step": "measured time per step ÷ dense",
    "sample": "measured time per sample ÷ dense",
}

_EXACT: dict[Against, str] = {"sparsity": "sparsity", "flops": "inference_flops_ratio"}
"""Columns of what is counted, and has no interval."""


def fid_vs_cost(tables: Sequence[Table], what: What) -> Figure | None:
    """The plot, or ``None`` where no sparse row has both an FID and such a cost.

    Cost is theoretical FLOPs, or measured time per optimizer step or per sample, relative to the
    dense network, which is at 1. Points are means over seeds with the interval of the time and one
    sample standard deviation of the FID; the sparsity stands beside them. Methods of equal FLOPs
    stand side by side.
    """
    found = [(table, points(table, what)) for table in tables]
    found = [(table, rows) for table, rows in found if (rows["method"] != DENSE).any()]
    if not found:
        return None
    methods = list(dict.fromkeys(method for _, rows in found for method in rows["method"]))
    sparse = [method for method in methods if method != DENSE]
    colours = {DENSE: (0.35, 0.35, 0.35), **colours_of(sparse)}
    markers = {DENSE: "*", **markers_of(sparse)}
    figure, every = panels(len(found))
    for axes, (table, rows) in zip(every, found, strict=True):
        aside = dodges(rows["cost"], rows["method"], sparse) if what == "flops" else 0.0
        rows["at"] = rows["cost"] + aside
        _add_front(axes, rows)
        for method, of_method in rows.groupby("method", sort=False):
            axes.errorbar(
                of_method["at"],
                of_method["fid"],
                xerr=(of_method["cost"] - of_method["low"], of_method["high"] - of_method["cost"]),
                yerr=of_method["spread"],
                color=colours[str(method)],
                marker=markers[str(method)],
                markersize=7,
                linestyle="none",
                capsize=3,
                label=str(method),
            )
        for point in rows[rows["method"] != DENSE].itertuples():
            axes.annotate(
                f"{point.sparsity:g}", (point.at, point.fid), (5, 4), fontsize=8,
                textcoords="offset points",
            )  # fmt: skip
        finish(axes, table, _LABELS[what])
        axes.set_xlim(left=0)
    add_legend(figure)
    return figure


def pareto_front(points: pd.DataFrame) -> pd.DataFrame:
    """The points (columns ``cost`` and ``fid``) that no other is better than in one of the two and
    at least as good in the other, by ascending cost."""
    best = points.sort_values(["cost", "fid"])
    return best[best["fid"] < best["fid"].cummin().shift(fill_value=float("inf"))]


def points(table: Table, what: Against) -> pd.DataFrame:
    """One line per row that has an FID and a cost: ``method``, ``sparsity``, ``seeds``, ``fid`` and
    its ``spread``, ``cost`` with its interval (``low``, ``high``)."""
    names = [f"{what}_time_{part}" for part in ("ratio", "low", "high")]
    if what in _EXACT:
        names = [_EXACT[what]] * 3
    found = pd.DataFrame(
        {
            "method": table.frame["method"],
            "sparsity": table.frame["sparsity"],
            "seeds": table.frame["seeds"],
            "fid": table.frame["fid_mean"],
            "spread": table.frame["fid_std"].fillna(0.0),
            **{
                part: table.frame[name]
                for part, name in zip(("cost", "low", "high"), names, strict=True)
            },
        }
    )
    if what != "sparsity":
        found.loc[found["method"] == DENSE, ["cost", "low", "high"]] = 1.0
    return found.dropna()


def _add_front(axes: Axes, points: pd.DataFrame) -> None:
    front = pareto_front(points)
    axes.step(
        front["cost"], front["fid"], where="post", color="0.6", linewidth=1.2, linestyle="--",
        zorder=1, label="Pareto front",
    )  # fmt: skip
    axes.plot(
        front["at"], front["fid"], "o", color="0.6", markersize=14, fillstyle="none", zorder=1
    )
