"""What the finished cells of a row have cost: numbers for one line of the leaderboard."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from dstbench.records import Ratio, Record


def check(record: Record) -> None:
    """Raise ``ArithmeticError`` or ``ValueError`` for a record whose numbers have no ratios, of a
    network without parameters, say, or are infinite."""
    done = [record]
    sparsities(done), times(done)
    counted = {**counts(done), **sizes(done)}
    if any(map(math.isinf, counted.values())):
        raise ValueError("a number is infinite")
    if record.counts and not record.counts.inference_flops:
        raise ValueError("a denoiser call takes no FLOPs")


def sparsities(done: Sequence[Record]) -> dict[str, float]:
    """Sparsities at the end of the training, and averaged over it: means over cells."""
    found = [record.counts for record in done if record.counts]
    return {
        "final_sparsity": mean(c.sparsity for c in found),
        "mean_sparsity": mean(c.mean_sparsity for c in found),
        "whole_model_sparsity": mean(c.whole_model_sparsity for c in found),
    }


def counts(done: Sequence[Record]) -> dict[str, float]:
    """Parameters and theoretical FLOPs, and their ratios to dense: means over cells."""
    found = [record.counts for record in done if record.counts]
    return {
        "active_parameters": mean(c.active_parameters for c in found),
        "active_parameters_ratio": mean(c.active_parameters / c.parameters for c in found),
        "inference_flops": mean(c.inference_flops for c in found),
        "inference_flops_ratio": mean(c.inference_flops / c.dense_inference_flops for c in found),
        "sample_flops": mean(c.sample_flops for c in found),
        "training_flops": mean(c.training_flops for c in found),
        "training_flops_ratio": mean(c.training_flops / c.dense_training_flops for c in found),
    }


def times(done: Sequence[Record]) -> dict[str, Any]:
    """Times as the cells ran, and relative to their dense twins: means over cells."""
    took = [record.times for record in done if record.times]
    found = [record.measurement for record in done if record.measurement]
    updates = [each.update for each in found if each.update]
    return {
        "training_step_seconds": mean(t.training_step for t in took),
        "sample_seconds": mean(t.sample for t in took),
        **_ratio("step_time", [each.step for each in found]),
        **_ratio("sample_time", [each.sample for each in found]),
        "update_time": mean(each.dense_steps for each in updates),
        "update_time_per_step": mean(each.per_step for each in updates),
        "kernels": "; ".join(dict.fromkeys(each.kernels for each in found)),
    }


def _ratio(name: str, ratios: Sequence[Ratio]) -> dict[str, Any]:
    """The mean of cells' ratios, and an interval that covers all of theirs."""
    return {
        f"{name}_ratio": mean(each.ratio for each in ratios),
        f"{name}_low": min((each.low for each in ratios), default=math.nan),
        f"{name}_high": max((each.high for each in ratios), default=math.nan),
        f"{name}_clock": "; ".join(sorted({each.clock for each in ratios})),
    }


def sizes(done: Sequence[Record]) -> dict[str, float]:
    """Bytes of state and of the kept network, and their ratios to dense: means over cells."""
    found = [record.sizes for record in done if record.sizes]
    on_gpu = [record for record in done if record.environment.gpu]
    return {
        "state_bytes": mean(s.state_bytes for s in found),
        "state_bytes_ratio": mean(s.state_bytes / s.dense_state_bytes for s in found),
        "model_bytes": mean(s.model_bytes for s in found),
        "model_bytes_ratio": mean(s.model_bytes / s.dense_model_bytes for s in found),
        "gpu_peak_bytes": mean(r.peak_memory for r in on_gpu if r.peak_memory is not None),
    }


def mean(values: Iterable[float]) -> float:
    """The mean; NaN where there are no values."""
    known = list(values)
    return fmean(known) if known else math.nan
