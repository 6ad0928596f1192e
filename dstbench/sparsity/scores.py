"""Scores that know nothing of a network."""

from __future__ import annotations

import torch
from torch import Tensor

from dstbench.sparsity.layers import Layer


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
