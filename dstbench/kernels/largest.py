"""The largest of many scores, chosen by a kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from dstbench.kernels import library
from dstbench.kernels.library import Long, address

_KERNELS = {torch.float32: "largest_floats", torch.int32: "largest_integers"}


def choose_largest(scores: Tensor, among: Tensor, count: int) -> tuple[Tensor, int] | None:
    """The ``count`` candidates of ``among``, which is boolean, with the largest scores, of equal
    ones those of lower index, and the number of candidates, -1 if the score of one is NaN; none is
    chosen then, or if they are too few.

    ``None`` where kernels are not in use, or do not take such tensors.
    """
    kernel, kernels = _KERNELS.get(scores.dtype), library.loaded()
    if not (kernel and kernels and scores.is_contiguous() and among.is_contiguous()):
        return None
    chosen = torch.zeros_like(among)
    given = Long(scores.numel()), address(scores), address(among), Long(count)
    return chosen, getattr(kernels, kernel)(*given, address(chosen))
