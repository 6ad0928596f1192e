"""What plots have in common: a panel per table, a colour and a marker per method, one legend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from textwrap import fill

import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from dstbench.cell import DENSE
from dstbench.report.leaderboard import Table

PANELS_ABREAST = 3
LEGEND = 1.6
"""Inches for a legend; one of long names gets more."""
LOG_FROM = 10
"""Ratio of the largest to the smallest FID from which on a panel's scale is logarithmic."""

DODGE = 0.06
"""Width at most that methods of one sparsity take side by side, on an axis from 0 to 1."""
ROUNDING = 0.005
"""Difference of two values below which they stand at one place."""


def panels(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels."""
    abreast = min(count, PANELS_ABREAST)
    deep = math.ceil(count / abreast)
    with sns.axes_style("ticks"):
        size = (4.6 * abreast + LEGEND, 3.6 * deep)
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        every = list(figure.subplots(deep, abreast, squeeze=False).flat)
    for unused in every[count:]:
        unused.remove()
    return figure, every[:count]


def colours_of(methods: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """A colour for each method."""
    palette = "colorblind" if len(methods) <= 10 else "husl"
    return dict(zip(methods, sns.color_palette(palette, len(methods)), strict=True))


def markers_of(methods: Sequence[str]) -> dict[str, str]:
    """A marker for each method."""
    return {method: "osD^vPX"[i % 7] for i, method in enumerate(methods)}


def dodges(
    values: pd.Series[float], methods: pd.Series[str], order: Sequence[str]
) -> pd.Series[float]:
    """What to add to the values so that methods of equal ones stand side by side, in their order,
    and closer to each other than to any other value."""
    known = sorted(set(values))
    gap = min((b - a for a, b in pairwise(known) if b - a > ROUNDING), default=DODGE / 2)
    step = min(DODGE, gap / 2) / max(len(order), 1)
    offsets = {method: (i - (len(order) - 1) / 2) * step for i, method in enumerate(order)}
    return methods.map(lambda method: offsets.get(method, 0.0))


def finish(axes: Axes, table: Table, xlabel: str) -> None:
    """Give a panel its labels, and FID a scale that fits."""
    means = table.frame["fid_mean"].dropna()
    if means.min() > 0 and means.max() > LOG_FROM * means.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set(xlabel=xlabel, ylabel="FID ↓")
    axes.set_title(fill(table.heading, 48), parse_math=False)
    axes.grid(axis="y", color="0.9")
    sns.despine(ax=axes)


def add_legend(figure: Figure) -> None:
    """Give a figure one legend for all panels, dense on top."""
    entries: dict[str, Artist] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
        if legend := axes.get_legend():
            legend.remove()
    labels = sorted(entries, key=lambda label: label != DENSE)
    wide = 0.5 + 0.085 * max(map(len, labels), default=0)
    figure.set_figwidth(figure.get_figwidth() + max(wide - LEGEND, 0))
    figure.legend(
        [entries[label] for label in labels], labels, loc="outside right upper", frameon=False
    )
