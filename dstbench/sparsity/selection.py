"""Choosing weights by score: exact counts, ties broken by index."""

from __future__ import annotations

import torch
from torch import Tensor

from dstbench.errors import SparsityError
from dstbench.sparsity.layers import Layer, zeroed_where_inactive


def largest(scores: Tensor, among: Tensor, count: int) -> Tensor:
    """The ``count`` candidates with the largest scores, as a boolean mask.

    Of equal scores the lower (row-major) index is chosen. ``scores`` (any real dtype) and
    ``among`` (bool: the candidates) have the same shape.

    Raises:
        SparsityError: if there are fewer candidates than ``count``, or a score that is NaN.
    """
    if count == 0:
        return torch.zeros_like(among)
    threshold = _kth_largest(_without_others(scores, among), count)
    chosen = torch.gt(scores, threshold).logical_and_(among)
    tied = torch.eq(scores, threshold).logical_and_(among)
    missing = count - int(chosen.count_nonzero())
    if int(tied.count_nonzero()) > missing:
        tied = _first(tied, missing)
    chosen.logical_or_(tied)
    if int(chosen.count_nonzero()) != count:
        raise SparsityError(
            f"cannot choose {count} of {int(among.count_nonzero())} candidates by these scores: "
            "too few candidates, or a score that is NaN"
        )
    return chosen


def _without_others(scores: Tensor, among: Tensor) -> Tensor:
    """A copy in which no other score is above a candidate's."""
    if scores.amin() >= 0:
        return zeroed_where_inactive(scores, among)  # several times faster on a CPU than filling
    lowest = -torch.inf if scores.is_floating_point() else torch.iinfo(scores.dtype).min
    return scores.masked_fill(~among, lowest)


def _kth_largest(scores: Tensor, k: int) -> float | int:
    """The k-th largest element; reorders ``scores``, which is dense in memory."""
    flat = scores.as_strided((scores.numel(),), (1,))
    position = flat.numel() - k
    if flat.device.type != "cpu":
        return flat.kthvalue(position + 1).values.item()
    # NumPy's vectorised partition is an order of magnitude faster than kthvalue on a CPU.
    values = (flat.float() if flat.dtype == torch.bfloat16 else flat).numpy()
    values.partition(position)
    return values[position].item()  # type: ignore[no-any-return]


def _first(mask: Tensor, count: int) -> Tensor:
    """The first ``count`` true elements, in row-major order whatever the memory format."""
    first = torch.zeros_like(mask)
    first[tuple(mask.nonzero()[:count].T)] = True
    return first


def random_scores(layer: Layer, rng: torch.Generator) -> Tensor:
    """Uniformly random, non-negative int32 scores in a layer's shape: the growth of MagRan.

    Two scores are cut from each 64-bit draw, which takes half the time of as many random floats;
    ties (at most one in 2³¹) go to the lower index.
    """
    weight = layer.weight
    words = torch.empty((weight.numel() + 1) // 2, dtype=torch.int64, device=weight.device)
    words.random_(torch.iinfo(torch.int64).min, None, generator=rng)
    scores = words.view(torch.int32)[: weight.numel()].bitwise_and_(torch.iinfo(torch.int32).max)
    return scores.as_strided(weight.shape, weight.stride())
