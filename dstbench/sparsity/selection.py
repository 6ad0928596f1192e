"""Choosing weights by score: exact counts, ties broken by index."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from dstbench.errors import SparsityError


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
    chosen = torch.ge(scores, threshold).logical_and_(among)
    if int(chosen.count_nonzero()) != count:
        chosen = torch.gt(scores, threshold).logical_and_(among)
        tied = torch.eq(scores, threshold).logical_and_(among)
        chosen.logical_or_(_first(tied, count - int(chosen.count_nonzero())))
        if int(chosen.count_nonzero()) != count:
            raise SparsityError("cannot choose by scores of which some are NaN")
    return chosen


def _kth_largest(scores: Tensor, among: Tensor, k: int) -> float | int:
    """The k-th largest score of the candidates."""
    candidates = _candidates(scores, among)
    others = len(candidates) - k
    if others < 0:
        raise SparsityError(f"cannot choose {k} of {len(candidates)} candidates")
    if isinstance(candidates, Tensor):
        return candidates.kthvalue(others + 1).values.item()
    candidates.partition(others)
    return candidates[others].item()  # type: ignore[no-any-return]


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
