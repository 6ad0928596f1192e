"""One row per cell: what to compute with where means over seeds are not enough."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import stdev
from typing import Any

import pandas as pd
from pydantic import BaseModel

from dstbench.cache import canonical
from dstbench.cell import Cell
from dstbench.records import (
    Counts,
    Measurement,
    Protocol,
    Ratio,
    Record,
    Scores,
    Sizes,
    Times,
)
from dstbench.report.formatting import MISSING, as_csv, escape_markdown
from dstbench.report.leaderboard import tables
from dstbench.report.text import Format

_PARTS: dict[str, type[BaseModel]] = {
    "scores": Scores,
    "counts": Counts,
    "times": Times,
    "sizes": Sizes,
    "protocol": Protocol,
}
_SECONDS = {"training_step": "training_step_seconds", "training": "training_seconds",
            "sample": "sample_seconds"}  # fmt: skip


def cell_frame(records: Sequence[Record]) -> pd.DataFrame:
    """One row per cell, by its id, in the order of the records.

    Columns: ``table`` and ``method``, as the leaderboard calls the cell's table and row;
    ``model``, ``dataset``, ``sparsifier``, ``sparsity``, ``seed``; every setting that
    differs among the cells that have it, by its path (``training.steps``); ``status`` and
    ``reason``; number of optimizer ``steps``, and of a budget of time the time of a step by which
    it was chosen; every score; counts of parameters and FLOPs, and the sparsities that follow from
    them; times (seconds) and sizes (bytes); times relative to the dense twin, with their intervals
    (``step_time_ratio``, ``step_time_low``, …); how they were scored, and on which machine. What a
    cell does not have is missing (NaN).
    """
    varied = _varied_settings(records)
    found = tables(records) if records else []
    names = {
        record.cell.id: {"table": table.heading, "method": row.method}
        for table in found
        for row in table.rows
        for record in row.records
    }
    rows = [
        names[record.cell.id] | _row(record, settings)
        for record, settings in zip(records, varied, strict=True)
    ]
    return pd.DataFrame(rows, index=pd.Index([r.cell.id for r in records], name="cell"))


def render_cells(cells: pd.DataFrame, format: Format = "markdown") -> str:
    """The rows of :func:`cell_frame` as text; markdown and LaTeX leave out empty columns."""
    if format == "csv":
        return as_csv(cells, index=True).rstrip("\n")
    if format == "json":
        return cells.reset_index().to_json(orient="records", indent=2, force_ascii=False)
    known = cells.dropna(axis="columns", how="all").reset_index()
    if format == "latex":
        return known.to_latex(index=False, escape=True, na_rep="---")
    escaped = known.astype(object).where(known.notna(), MISSING).map(_escaped)
    return escaped.to_markdown(index=False, disable_numparse=True)


def _escaped(value: object) -> str:
    return escape_markdown(f"{value:.6g}" if isinstance(value, float) else str(value))


def _row(record: Record, settings: Mapping[str, Any]) -> dict[str, Any]:
    cell, counts = record.cell, record.counts
    parts = {
        name: getattr(part, name, None)
        for field, schema in _PARTS.items()
        for part in [getattr(record, field)]
        for name in schema.model_fields
        if name != "others"
    }
    return {
        "model": cell.model,
        "dataset": cell.dataset,
        "sparsifier": cell.sparsifier,
        "sparsity": cell.sparsity,
        "seed": cell.seed,
        **settings,
        "status": record.status,
        "reason": record.reason or None,
        **_budget(record),
        **{_SECONDS.get(name, name): value for name, value in parts.items()},
        "final_sparsity": counts and counts.sparsity,
        "mean_sparsity": counts and counts.mean_sparsity,
        "whole_model_sparsity": counts and counts.whole_model_sparsity,
        **_measured(record.measurement),
        "gpu_peak_bytes": record.peak_memory if record.environment.gpu else None,
        "validation_loss": record.validation_loss,
        "topology_updates": record.topology_updates,
        "skipped_topology_updates": record.skipped_topology_updates,
        **_surroundings(record),
        "untrained_fid": record.untrained_scores and record.untrained_scores.fid,
        "machine": record.environment.machine,
        "started": record.started,
    }


def _surroundings(record: Record) -> dict[str, Any]:
    """Scores by further metrics, and which way they are better; the noise of the FID, and how near
    training images are."""
    others = record.scores.others if record.scores else {}
    fids = [each.fid for each in record.scores_by_noise if each.fid is not None]
    interval, near = record.fid_interval, record.nearest
    quantities = record.protocol.others if record.protocol else ()
    return others | {
        "further_scores": "; ".join(f"{q.name} {q.better}" for q in quantities) or None,
        "fid_low": interval and interval.low,
        "fid_high": interval and interval.high,
        "fid_sampling_std": stdev(fids) if len(fids) > 1 else None,
        "nearest_training": near and near.samples,
        "nearest_among_training": near and near.training,
    }


def _budget(record: Record) -> dict[str, Any]:
    """The number of optimizer steps, and by which time of a step it was chosen."""
    step = record.budget and record.budget.step
    ends = ("ratio", "low", "high") if step else ()
    return {"steps": record.steps} | {f"budget_step_time_{end}": getattr(step, end) for end in ends}


def _measured(measurement: Measurement | None) -> dict[str, Any]:
    ratios = {
        f"{name}_{field}": measurement and getattr(getattr(measurement, part), field)
        for part, name in (("step", "step_time"), ("sample", "sample_time"))
        for field in Ratio.model_fields
    }
    update = measurement and measurement.update
    return ratios | {
        "update_time": update and update.dense_steps,
        "update_time_per_step": update and update.per_step,
        "kernels": measurement and measurement.kernels,
        "load": measurement and measurement.load_before,
    }


def _varied_settings(records: Sequence[Record]) -> list[dict[str, Any]]:
    """The settings of each cell that are not the same in all cells that have them."""
    cells = [record.cell for record in records]
    # Of thousands of cells there are but a few settings, by model, dataset and sparsifier.
    keys = [(c.model, c.dataset, c.sparsifier, canonical(c.settings)) for c in cells]
    different = dict(zip(keys, cells, strict=True))
    leaves = {key: dict(_leaves(cell.settings)) for key, cell in different.items()}
    values: dict[tuple[str, str], set[str]] = {}
    for key, cell in different.items():
        for path, value in leaves[key].items():
            values.setdefault((path, _versioned(cell, path)), set()).add(canonical(value))
    varied = dict.fromkeys(path for (path, _), found in values.items() if len(found) > 1)
    return [{path: leaves[key].get(path) for path in varied} for key in keys]


def _versioned(cell: Cell, path: str) -> str:
    """The plugin that a path is the version of: those of different plugins do not vary."""
    plugins = {
        "versions.model": cell.model,
        "versions.dataset": cell.dataset,
        "versions.sparsifier": cell.sparsifier,
        "versions.feature extractor": cell.evaluation_settings.extractor,
    }
    return plugins.get(path, "")


def _leaves(settings: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value
