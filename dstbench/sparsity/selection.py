"""Choosing weights by score: exact counts, ties broken by index."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dstbench.errors import SparsityError
from dstbench.kernels.largest import choose_largest

_SAMPLE = 4096
"""About as many scores are looked at to guess where among all of them one ranks."""

_Array = npt.NDArray[Any]


def largest(scores: Tensor, among: Tensor, count: int) -> Tensor:
    """The ``count`` candidates with the largest scores, as a boolean mask.

    Of equal scores the lower (row-major) index is chosen. ``scores`` (any real dtype) and
    ``among`` (bool: the candidates) have the same shape.

    Raises:
        SparsityError: if there are fewer candidates than ``count``, or a score that is NaN.
    """
    if count == 0:
        return torch.zeros_like(among)
    if not scores.is_cpu:
        return first_of_order(scores, among, count)
    if by_kernel := choose_largest(scores, among, count):
        chosen, candidates = by_kernel
        if candidates < 0:
            raise _not_a_number()
        if candidates < count:
            raise _too_few(count, candidates)
        return chosen
    threshold = _kth_largest(scores, among, count)
    chosen = _at_least(scores, threshold).logical_and_(among)
    if count_true(chosen) != count:
        chosen = torch.gt(scores, threshold).logical_and_(among)
        tied = torch.eq(scores, threshold).logical_and_(among)
        chosen.logical_or_(_first(tied, count - count_true(chosen)))
        if count_true(chosen) != count:
            raise _not_a_number()
    return chosen


def first_of_order(scores: Tensor, among: Tensor, count: int) -> Tensor:
    """What :func:`largest` chooses, for a GPU, which is waited for once."""
    flat_scores, candidates = scores.flatten(), among.flatten()
    order = flat_scores.sort(stable=True, descending=True).indices
    order = order[candidates[order].to(torch.uint8).sort(stable=True, descending=True).indices]
    chosen = torch.zeros_like(candidates).scatter_(0, order[:count], True)
    wrong = flat_scores.isnan().logical_and_(candidates)
    available, without_order = together([counted(candidates), counted(wrong)])
    if available < count:
        raise _too_few(count, available)
    if without_order:
        raise _not_a_number()
    return torch.empty_like(among).copy_(chosen.view(among.shape))


def _too_few(count: int, candidates: int) -> SparsityError:
    return SparsityError(f"cannot choose {count} of {candidates} candidates")


def _not_a_number() -> SparsityError:
    return SparsityError("cannot choose by scores of which some are NaN")


def _at_least(scores: Tensor, threshold: float) -> Tensor:
    """Where scores are at least a threshold; NumPy compares seven times as fast as torch."""
    if scores.dtype == torch.bfloat16:
        return torch.ge(scores, threshold)
    return torch.from_numpy(np.asarray(np.greater_equal(scores.numpy(), threshold)))


def count_true(mask: Tensor) -> int:
    """Number of true elements of a boolean mask, which NumPy counts five times as fast as torch."""
    return int(np.count_nonzero(mask.numpy()) if mask.is_cpu else mask.count_nonzero())


def counted(mask: Tensor) -> Tensor:
    """:func:`count_true`, as an element where the mask is, for :func:`together`."""
    return torch.tensor(count_true(mask)) if mask.is_cpu else mask.count_nonzero()


def together(elements: Iterable[Tensor]) -> list[Any]:
    """The values of tensors of one element and one dtype; a GPU on which they are is waited for
    once."""
    elements = list(elements)
    if not elements:
        return []
    device = elements[0].device
    return torch.stack([each.to(device) for each in elements]).tolist()


def _kth_largest(scores: Tensor, among: Tensor, k: int) -> float | int:
    """The k-th largest score of the candidates."""
    count = count_true(among)
    others = count - k
    if others < 0:
        raise _too_few(k, count)
    near, below = _near(*_as_arrays(scores, among), count, others)
    near.partition(others - below)
    return near[others - below].item()  # type: ignore[no-any-return]


def _near(
    scores: _Array, among: npt.NDArray[np.bool_], count: int, index: int
) -> tuple[_Array, int]:
    """Some of the ``count`` candidates, among them the one that sorting would bring to ``index``,
    and the number of those left out before it: what a sample says. Taking all out of an array takes
    several times as long, and so does partition.
    """
    if count < 4 * _SAMPLE:
        return scores.compress(among), 0
    step = count // _SAMPLE | 1  # odd, lest it sees one connection of 2:4 alone
    sample = np.sort(scores[::step][among[::step]])
    if not len(sample):
        return scores.compress(among), 0
    at = index * len(sample) // count
    margin = 8 + math.ceil(4 * math.sqrt(at * (1 - at / len(sample))))  # four standard deviations
    below, inside = 0, among
    if at >= margin:
        lower = (scores < sample[at - margin]) & among
        below = int(np.count_nonzero(lower))
        inside = among & ~lower
    if at + margin < len(sample):
        inside = (scores <= sample[at + margin]) & inside
    near = scores.compress(inside)
    sound = below <= index < below + len(near)  # unless the sample has misled
    return (near, below) if sound else (scores.compress(among), 0)


def _as_arrays(scores: Tensor, among: Tensor) -> tuple[_Array, npt.NDArray[np.bool_]]:
    """Scores and candidates in the order in which they are stored, for NumPy, whose vectorised
    comparisons, compress and partition are some fifty times faster than torch's indexing and
    kthvalue."""
    if scores.dtype == torch.bfloat16:
        scores = scores.float()
    dense = torch.empty_like(among, device="meta").stride()
    if not scores.stride() == among.stride() == dense:
        scores, among = scores.contiguous(), among.contiguous()
    return flat(scores).numpy(), flat(among).numpy()


def flat(tensor: Tensor) -> Tensor:
    """All elements in the order in which they are stored, which is dense."""
    return tensor.as_strided((tensor.numel(),), (1,))


def _first(mask: Tensor, count: int) -> Tensor:
    """The first ``count`` true elements, in row-major order whatever the memory format."""
    first = torch.zeros_like(mask)
    first[tuple(mask.nonzero()[:count].T)] = True
    return first
