"""FID against sparsity: one panel per table, one line per method, dense as the reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from textwrap import fill

import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from dstbench.cell import DENSE
from dstbench.report.leaderboard import METRICS, Table

FID = METRICS[0]
PANELS_ABREAST = 3
LOG_FROM = 10
"""Ratio of the largest to the smallest FID from which on a panel's scale is logarithmic."""


def fid_vs_sparsity(tables: Sequence[Table]) -> Figure | None:
    """The plot, or ``None`` where no sparse cell has an FID.

    Points are means over seeds, bars one sample standard deviation to either side.
    """
    panels = [(table, scores) for table in tables if len(scores := _sparse_scores(table))]
    if not panels:
        return None
    methods = list(dict.fromkeys(method for _, scores in panels for method in scores["method"]))
    palette = "colorblind" if len(methods) <= 10 else "husl"
    colours = dict(zip(methods, sns.color_palette(palette, len(methods)), strict=True))
    markers = {method: "osD^vPX"[i % 7] for i, method in enumerate(methods)}

    abreast = min(len(panels), PANELS_ABREAST)
    deep = math.ceil(len(panels) / abreast)
    with sns.axes_style("ticks"):
        figure = Figure(figsize=(4.6 * abreast + 1.6, 3.6 * deep), dpi=150, layout="constrained")
        grid = figure.subplots(deep, abreast, squeeze=False).flat
    for axes, (table, scores) in zip(grid, panels, strict=False):
        sns.lineplot(
            scores,
            x="sparsity",
            y="FID",
            hue="method",
            style="method",
            palette=colours,
            markers=markers,
            dashes=False,
            markersize=7,
            errorbar="sd",
            err_style="bars",
            err_kws={"capsize": 3},
            ax=axes,
        )
        _add_dense(axes, table)
        _finish(axes, table, sorted(set(scores["sparsity"])))
    for unused in list(figure.axes)[len(panels) :]:
        unused.remove()
    _add_legend(figure)
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


def _finish(axes: Axes, table: Table, sparsities: list[float]) -> None:
    means = table.frame["fid_mean"].dropna()
    if means.min() > 0 and means.max() > LOG_FROM * means.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xticks(sparsities, [f"{sparsity:g}" for sparsity in sparsities])
    axes.set(xlabel="sparsity S of the sparsifiable weights", ylabel="FID ↓")
    axes.set_title(fill(table.heading, 48), parse_math=False)
    axes.grid(axis="y", color="0.9")
    sns.despine(ax=axes)


def _add_legend(figure: Figure) -> None:
    """One legend for all panels, dense on top."""
    entries: dict[str, Artist] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
        if legend := axes.get_legend():
            legend.remove()
    labels = sorted(entries, key=lambda label: label != DENSE)
    figure.legend(
        [entries[label] for label in labels], labels, loc="outside right upper", frameon=False
    )
