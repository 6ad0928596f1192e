"""A plan as text: a table to read, csv and json to compute with."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import pandas as pd
from tabulate import tabulate

from dstbench.grid.variants import variants
from dstbench.planning.planner import Plan
from dstbench.report.formatting import MISSING, escape_markdown, inert, scaled, with_ratio

PlanFormat = Literal["table", "csv", "json"]


def render_plan(
    plans: Sequence[Plan], format: PlanFormat, title: str, machine: str | None = None
) -> str:
    """What the cells would cost, as text; ``machine`` is where they were timed, if they were.

    csv and json have one row per cell, with FLOPs, bytes and seconds as plain numbers; what is not
    known is empty (csv) or null (json). The table is markdown: one per task, with one row for the
    cells that differ in nothing but their seed, and a last one of totals.
    """
    if format == "table":
        return _markdown(plans, title, machine)
    rows = _rows(plans)
    if format == "json":
        return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys() if rows else (), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: inert(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def plan_frame(plans: Sequence[Plan]) -> pd.DataFrame:
    """The rows of :func:`render_plan`, one per cell, by its id."""
    return pd.DataFrame(_rows(plans)).set_index("cell")


def _rows(plans: Sequence[Plan]) -> list[dict[str, Any]]:
    distinctions = variants([plan.cell for plan in plans])
    return [_row(plan, distinctions[plan.cell.id]) for plan in plans]


def _row(plan: Plan, varied: str) -> dict[str, Any]:
    cell, counts, products = plan.cell, plan.counts, plan.sparsifiable_flops
    return {
        "cell": cell.id,
        "model": cell.model,
        "dataset": cell.dataset,
        "sparsifier": cell.sparsifier,
        "sparsity": cell.sparsity,
        "seed": cell.seed,
        "varied_settings": varied,
        "steps": plan.steps,
        "parameters": counts and counts.parameters,
        "active_parameters": counts and counts.active_parameters,
        "active_parameters_ratio": counts and counts.active_parameters / counts.parameters,
        "inference_flops": counts and counts.inference_flops,
        "inference_flops_ratio": counts and counts.inference_flops / counts.dense_inference_flops,
        "sparsifiable_flops": products and products.masked,
        "sparsifiable_flops_ratio": products and products.masked / products.dense,
        "training_flops": plan.training_flops,
        "training_flops_ratio": counts
        and plan.training_flops
        and plan.training_flops / counts.dense_training_flops,
        "sampling_flops": plan.sampling_flops,
        "checkpoint_bytes": plan.checkpoint_bytes,
        "kept_bytes": plan.kept_bytes,
        "kept_bytes_ratio": plan.kept_ratio,
        "training_seconds": plan.training_seconds,
        "sampling_seconds": plan.sampling_seconds,
        "assumed": plan.assumed,
        "problem": plan.problem,
    }


def _markdown(plans: Sequence[Plan], title: str, machine: str | None) -> str:
    tasks: dict[str, list[Plan]] = {}
    for plan in plans:
        tasks.setdefault(plan.cell.task, []).append(plan)
    is_timed = machine is not None
    parts = [f"# {escape_markdown(title)}: the plan"]
    for task, of_task in tasks.items():
        parts += [f"## {escape_markdown(task)}", *_task(of_task, is_timed)]
    parts += ["## In all", _totals(tasks, is_timed), _notes(machine)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _task(plans: Sequence[Plan], is_timed: bool) -> Iterator[str]:
    dense = next((plan for plan in plans if plan.counts), None)
    if dense and dense.counts and dense.sparsifiable_flops:
        counts, products = dense.counts, dense.sparsifiable_flops
        calls = round(counts.sample_flops / counts.inference_flops)
        yield (
            f"{counts.parameters:,} parameters, {counts.sparsifiable:,} of them sparsifiable; "
            f"dense, a denoiser call takes {_flops(counts.dense_inference_flops)}, "
            f"{_flops(products.dense)} of it in products with sparsifiable weights; a sample takes "
            f"{calls:,} calls."
        )
    told = any(plan.counts and plan.steps != plan.cell.training_settings.steps for plan in plans)
    header = [
        "method", "S", "seeds", *(["steps"] if told else []),
        "active parameters (×)", "GFLOPs per call (×)",
        "with sparsifiable weights (×)", "training FLOPs (×)", "checkpoint", "kept (×)",
        *(["training", "sampling"] if is_timed else []),
    ]  # fmt: skip
    distinctions = variants([plan.cell for plan in plans])
    yield _table(
        header,
        [
            [
                *_method(same, distinctions[same[0].cell.id]),
                *([f"{same[0].steps:,}" if same[0].steps else MISSING] if told else []),
                *_costs(same[0], is_timed),
            ]
            for same in _alike(plans)
        ],
    )
    yield _bullets(
        f"Counted with {assumed}." for assumed in dict.fromkeys(p.assumed for p in plans) if assumed
    )
    yield _bullets(dict.fromkeys(plan.problem for plan in plans if plan.problem))


def _alike(plans: Sequence[Plan]) -> list[list[Plan]]:
    """The plans of cells that differ in nothing but their seed, together."""
    groups: dict[str, list[Plan]] = {}
    for plan in plans:
        same = json.dumps(plan.cell.model_dump(mode="json", exclude={"seed"}), sort_keys=True)
        groups.setdefault(same, []).append(plan)
    return list(groups.values())


def _method(same: Sequence[Plan], varied: str) -> Iterator[str]:
    cell = same[0].cell
    yield f"{cell.sparsifier} ({varied})" if varied else cell.sparsifier
    yield f"{cell.sparsity:g}"
    yield str(len(same))


def _costs(plan: Plan, is_timed: bool) -> Iterator[str]:
    counts, products = plan.counts, plan.sparsifiable_flops
    if counts is None or products is None or plan.kept_bytes is None or plan.kept_ratio is None:
        yield from [MISSING] * (8 if is_timed else 6)
        return
    gigas, number = scaled(1e-9), "{:,}".format
    active, inference, training = (
        counts.active_parameters, counts.inference_flops, plan.training_flops
    )  # fmt: skip
    yield with_ratio(active, active / counts.parameters, number)
    yield with_ratio(inference, inference / counts.dense_inference_flops, gigas)
    yield with_ratio(products.masked, products.masked / products.dense, gigas)
    if training is None:
        yield MISSING
    else:
        yield with_ratio(training, training / counts.dense_training_flops, "{:.2e}".format)
    yield _bytes(plan.checkpoint_bytes)
    yield with_ratio(plan.kept_bytes, plan.kept_ratio, _bytes)
    if is_timed:
        yield _duration(plan.training_seconds)
        yield _duration(plan.sampling_seconds)


def _totals(tasks: Mapping[str, Sequence[Plan]], is_timed: bool) -> str:
    header = [
        "task", "cells", "training FLOPs", "sampling FLOPs", "kept", "disk at most",
        *(["training", "sampling"] if is_timed else []),
    ]  # fmt: skip
    everything = {"all": [plan for plans in tasks.values() for plan in plans]}
    groups = {**tasks, **(everything if len(tasks) > 1 else {})}
    return _table(header, [[task, *_total(plans, is_timed)] for task, plans in groups.items()])


def _total(plans: Sequence[Plan], is_timed: bool) -> Iterator[str]:
    counted = [plan for plan in plans if plan.counts]
    missing = len(plans) - len(counted)
    yield f"{len(plans)}, {missing} of them not counted" if missing else str(len(plans))
    if not counted:
        yield from [MISSING] * (6 if is_timed else 4)
        return
    kept = sum(plan.kept_bytes or 0 for plan in counted)
    training = _sum(plan.training_flops for plan in counted)
    yield MISSING if training is None else f"{training:.2e}"
    yield f"{math.fsum(plan.sampling_flops or 0 for plan in counted):.2e}"
    yield _bytes(kept)
    yield _bytes(kept + 2 * max(plan.checkpoint_bytes or 0 for plan in counted))
    if is_timed:
        yield _duration(_sum(plan.training_seconds for plan in counted))
        yield _duration(_sum(plan.sampling_seconds for plan in counted))


def _notes(machine: str | None) -> str:
    notes = [
        "S is the fraction of the sparsifiable weights that are zero; (×): relative to dense.",
        "FLOPs are theoretical: a masked weight costs nothing, one multiply-add = one FLOP. "
        "Training: three forward passes' worth per example and step, and what the method's dense "
        "gradients cost. Sampling: all denoiser calls of all samples; decoder not included.",
        "Disk is estimated: two checkpoints are there while a cell is in training (and a third "
        "while it is written, if there is room); the trained weights are kept. Of masked weights "
        "all hold the active values and a bit per connection. Cells that run at the "
        "same time have two checkpoints each. Prepared data are not included.",
    ]
    if machine is not None:
        notes.append(
            "Times are estimates for dense arithmetic, extrapolated from a few steps with random "
            f"inputs on {machine}: masks save no time today. Training includes the optimizer and "
            "the averaged weights, sampling the denoiser's calls; preparing data, decoding and "
            "scoring are left out."
        )
    return _bullets(notes)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    alignment = ["left"] + ["right"] * (len(header) - 1)
    body = [[escape_markdown(text) for text in row] for row in rows]
    return tabulate(body, header, "pipe", disable_numparse=True, colalign=alignment)


def _bullets(notes: Iterable[str]) -> str:
    return "\n".join(f"- {escape_markdown(note)}" for note in notes)


def _sum(values: Iterable[float | None]) -> float | None:
    """The sum of the values that are known, if there are any."""
    known = [value for value in values if value is not None]
    return math.fsum(known) if known else None


def _flops(value: float) -> str:
    return f"{scaled(1e-9)(value)} GFLOPs"


def _bytes(size: float | None) -> str:
    return _in_unit(size, {"TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1})


def _duration(seconds: float | None) -> str:
    return _in_unit(seconds, {"d": 86400, "h": 3600, "min": 60, "s": 1})


def _in_unit(value: float | None, units: Mapping[str, int]) -> str:
    """The value, to three digits, in the largest unit that it is at least one of."""
    if value is None:
        return MISSING
    unit, size = next((item for item in units.items() if value >= item[1]), list(units.items())[-1])
    return f"{scaled(1 / size)(value)} {unit}"
