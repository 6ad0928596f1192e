"""Charts of a report: a point per row of a table, a line per cell, a map of layers per row."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io
from matplotlib.colors import to_hex

from dstbench.cell import DENSE
from dstbench.records import Record
from dstbench.report.leaderboard import Table
from dstbench.report.panels import colours_of
from dstbench.report.rows import Row
from dstbench.report.sheet import row_label
from dstbench.report.trade_off import Against, pareto_front, points

POINTS = 400
"""Most points of a learning curve: more rows of a history are averaged, several to a point."""

CHARTS: tuple[tuple[Against, str, str], ...] = (
    ("sparsity", "sparsity", "sparsity S"),
    ("flops", "theoretical FLOPs", "theoretical FLOPs per denoiser call ÷ dense"),
    ("step", "measured time per step", "measured time per step ÷ dense"),
    ("sample", "measured time per sample", "measured time per sample ÷ dense"),
)
"""What FID is shown against, its name, and the axis."""


class Chart(NamedTuple):
    """A chart as a page shows it."""

    title: str
    plot: str
    """HTML."""
    choices: Sequence[str] = ()
    """Names of its traces, where they are shown one at a time."""
    chosen: int = 0
    """Which of them is shown first."""


def trade_offs(table: Table) -> Iterator[Chart]:
    """FID against sparsity, FLOPs and measured times, as far as they are known."""
    for what, name, axis in CHARTS:
        found = points(table, what)
        if (found["method"] != DENSE).any():
            figure = _trade_off(found, axis, what != "sparsity")
            yield Chart(f"FID against {name}", _html(figure))


def learning_curves(histories: Sequence[tuple[Row, Record, pd.DataFrame]]) -> Chart:
    """The loss of each cell by step."""
    colours = _colours(row.method for row, _, _ in histories)
    figure = go.Figure()
    named: set[str] = set()
    for row, record, history in histories:
        method = html.escape(row.method)
        thinned = _thinned(history)
        figure.add_scatter(
            x=thinned["step"], y=thinned["loss"], name=method, legendgroup=method, mode="lines",
            line={"color": colours[row.method], "width": 1.2}, opacity=0.8,
            showlegend=method not in named, hovertemplate=f"{_label(row)}, seed {record.cell.seed}"
            "<br>step %{x}: loss %{y:.4g}<extra></extra>",
        )  # fmt: skip
        named.add(method)
    _lay_out(figure, "optimizer step", "loss")
    ticks = [digit * 10**power for power in range(-9, 9) for digit in (1, 2, 5)]
    figure.update_yaxes(type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])
    return Chart("Learning curves", _html(figure))


def topologies(found: Sequence[tuple[Row, pd.DataFrame]]) -> Chart:
    """Maps of layers by step, one for each row and choice: densities, and the connections that
    topology updates replaced or added, of which the first is shown first."""
    figure = go.Figure()
    names: list[str] = []
    changes: list[int] = []
    for row, topology in found:
        for column, what in (("density", "density"), ("changed", "connections changed")):
            grid = topology.pivot_table(index="layer", columns="step", values=column, sort=False)
            steps = [int(step) for step in grid.columns]
            if column == "changed":
                if len(steps) < 2:
                    continue  # masks that stay
                changes.append(len(names))
            end = max(row.done[0].steps or 0, steps[-1] + 1)
            names.append(f"{row_label(row.method, row.sparsity)}: {what}")
            figure.add_heatmap(
                x=[*steps, end], y=[html.escape(str(layer)) for layer in grid.index],
                z=grid.to_numpy(), visible=False, colorscale="Viridis", zmin=0,
                zmax=1 if column == "density" else None, colorbar={"thickness": 16},
                customdata=np.broadcast_to(steps, grid.shape),
                hovertemplate="%{y}<br>step %{customdata}: %{z:.4g}<extra></extra>",
            )  # fmt: skip
    chosen = changes[0] if changes else 0
    figure.data[chosen].visible = True
    _lay_out(figure, "optimizer step", "layer, from the first")
    figure.update_yaxes(showticklabels=False)
    return Chart("Layers over time", _html(figure), names, chosen)


def _trade_off(found: pd.DataFrame, axis: str, front: bool) -> go.Figure:
    colours = _colours(found["method"])
    figure = go.Figure()
    if front:
        best = pareto_front(found)
        figure.add_scatter(
            x=best["cost"], y=best["fid"], name="Pareto front", mode="lines",
            line={"color": "#999", "dash": "dash", "shape": "hv"}, hoverinfo="skip",
        )  # fmt: skip
    for method, rows in found.groupby("method", sort=False):
        name = html.escape(str(method))
        figure.add_scatter(
            x=rows["cost"], y=rows["fid"], name=name, mode="markers",
            marker={"color": colours[str(method)], "size": 10,
                    "symbol": "star" if method == DENSE else "circle"},
            error_y={"array": rows["spread"], "thickness": 1},
            error_x={"array": rows["high"] - rows["cost"], "arrayminus": rows["cost"] - rows["low"],
                     "symmetric": False, "thickness": 1},
            customdata=rows[["sparsity", "spread", "seeds"]],
            hovertemplate=f"{name}, S = %{{customdata[0]:~g}}<br>FID %{{y:.2f}} ± "
            "%{customdata[1]:.2f} (%{customdata[2]} seeds)<br>"
            f"{axis}: %{{x:.3g}}<extra></extra>",
        )  # fmt: skip
    _lay_out(figure, axis, "FID")
    return figure


def _lay_out(figure: go.Figure, x: str, y: str) -> None:
    figure.update_layout(
        template="plotly_white", height=400, hovermode="closest",
        margin={"l": 60, "r": 20, "t": 40, "b": 50},
        legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
    )  # fmt: skip
    figure.update_xaxes(title=x)
    figure.update_yaxes(title=y)


def _thinned(history: pd.DataFrame) -> pd.DataFrame:
    """The history's steps and losses, several rows averaged to a point where there are many."""
    every = -(-len(history) // POINTS)
    groups = history[["step", "loss"]].groupby(history.index // max(every, 1))
    return groups.agg({"step": "last", "loss": "mean"})


def _colours(methods: Iterable[str]) -> dict[str, str]:
    sparse = [method for method in dict.fromkeys(methods) if method != DENSE]
    return {DENSE: "#555"} | {name: to_hex(rgb) for name, rgb in colours_of(sparse).items()}


def _label(row: Row) -> str:
    return html.escape(row_label(row.method, row.sparsity))


def _html(figure: go.Figure) -> str:
    options: dict[str, Any] = {"displaylogo": False, "responsive": True}
    text: str = plotly.io.to_html(figure, config=options, include_plotlyjs=False, full_html=False)
    return text
