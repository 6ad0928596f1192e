"""Choosing weights by score: exact counts, ties broken by index."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dstbench.errors import SparsityError

_SAMPLE = 1024
"""About as many scores are looked at to guess where among all of them one ranks."""


def largest(scores: Tensor, among: Tensor, count: int) -> Tensor:
    """The ``count`` candidates with the largest scores, as a boolean mask.

    Of equal scores the lower (row-major) index is chosen. ``scores`` (any real dtype) and
    ``among`` (bool: the candidates) have the same shape.

    Raises:
        SparsityError: if there are fewer candidates than ``count``, or a score that is NaN.
    """
    if count == 0:
        return torch.zeros_like(among)
    threshold = _kth_largest(scores, among, count)
    chosen = _at_least(scores, threshold).logical_and_(among)
    if count_true(chosen) != count:
        chosen = torch.gt(scores, threshold).logical_and_(among)
        tied = torch.eq(scores, threshold).logical_and_(among)
        chosen.logical_or_(_first(tied, count - count_true(chosen)))
        if count_true(chosen) != count:
            raise SparsityError("cannot choose by scores of which some are NaN")
    return chosen


def _at_least(scores: Tensor, threshold: float) -> Tensor:
    """Where scores are at least a threshold; NumPy compares seven times as fast as torch."""
    if not scores.is_cpu or scores.dtype == torch.bfloat16:
        return torch.ge(scores, threshold)
    return torch.from_numpy(np.asarray(np.greater_equal(scores.numpy(), threshold)))


def count_true(mask: Tensor) -> int:
    """Number of true elements of a boolean mask, which NumPy counts five times as fast as torch."""
    return int(np.count_nonzero(mask.numpy()) if mask.is_cpu else mask.count_nonzero())


def _kth_largest(scores: Tensor, among: Tensor, k: int) -> float | int:
    """The k-th largest score of the candidates."""
    candidates = _candidates(scores, among)
    others = len(candidates) - k
    if others < 0:
        raise SparsityError(f"cannot choose {k} of {len(candidates)} candidates")
    if isinstance(candidates, Tensor):
        return candidates.kthvalue(others + 1).values.item()
    near, below = _bracket(candidates, others)
    near.partition(others - below)
    return near[others - below].item()  # type: ignore[no-any-return]


def _bracket(candidates: npt.NDArray[Any], index: int) -> tuple[npt.NDArray[Any], int]:
    """Some of the candidates, among them the one that sorting would bring to ``index``, and the
    number of those left out before it: what a sample says, which partition takes far longer for.
    """
    count = len(candidates)
    if count < 16 * _SAMPLE:
        return candidates, 0
    sample = np.sort(candidates[:: count // _SAMPLE])
    at, margin = index * len(sample) // count, len(sample) // 32
    less = candidates < sample[at - margin] if at >= margin else np.zeros(count, dtype=bool)
    inside = ~less  # as is NaN, which sorting brings last
    if at + margin < len(sample):
        inside &= candidates <= sample[at + margin]
    near, below = candidates[inside], int(np.count_nonzero(less))
    sound = below <= index < below + len(near)  # unless the sample has misled
    return (near, below) if sound else (candidates, 0)


def _candidates(scores: Tensor, among: Tensor) -> Tensor | npt.NDArray[Any]:
    """The scores of the candidates, in any order.

    NumPy's vectorised compress and partition are some fifty times faster than torch's indexing and
    kthvalue. Other weights than candidates are left out rather than filled with a constant:
    partition is as slow as kthvalue where most values are equal.
    """
    if scores.device.type != "cpu":
        return scores[among]
    if scores.dtype == torch.bfloat16:
        scores = scores.float()
    dense = torch.empty_like(among, device="meta").stride()
    if not scores.stride() == among.stride() == dense:
        scores, among = scores.contiguous(), among.contiguous()
    return _flat(scores).numpy().compress(_flat(among).numpy())


def _flat(tensor: Tensor) -> Tensor:
    """All elements in the order in which they are stored, which is dense."""
    return tensor.as_strided((tensor.numel(),), (1,))


def _first(mask: Tensor, count: int) -> Tensor:
    """The first ``count`` true elements, in row-major order whatever the memory format."""
    first = torch.zeros_like(mask)
    first[tuple(mask.nonzero()[:count].T)] = True
    return first
