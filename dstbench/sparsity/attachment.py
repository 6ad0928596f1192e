"""The check of what a sparsifier is attached to."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from dstbench.errors import SparsityError


def check_attachable(
    weights: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    averaged: nn.Module | None,
) -> None:
    """Refuse weights that cannot be kept masked while ``optimizer`` trains them.

    ``weights`` are by parameter name; ``averaged`` is the copy of their network that is masked with
    them.

    Raises:
        SparsityError: if there are none, or if one is given twice, frozen, not the optimizer's,
            stored with gaps, or not in the averaged copy with the same shape.
    """
    if not weights:
        raise SparsityError("the model has no weights that may be masked")
    if len({id(weight) for weight in weights.values()}) < len(weights):
        raise SparsityError("the same weight is given under two names; give it once")
    optimized = {id(p) for group in optimizer.param_groups for p in group["params"]}
    shapes = {} if averaged is None else {n: p.shape for n, p in averaged.named_parameters()}
    for name, weight in weights.items():
        if not weight.requires_grad:
            raise SparsityError(f"{name} is frozen, and only trained weights can be masked")
        if id(weight) not in optimized:
            raise SparsityError(
                f"{name} is not among the optimizer's parameters: attach the sparsifier to "
                "the optimizer that trains the model, or freeze the weight"
            )
        if torch.empty_like(weight).stride() != weight.stride():
            raise SparsityError(f"{name} is stored with gaps; make it contiguous first")
        if averaged is not None and shapes.get(name) != weight.shape:
            raise SparsityError(
                f"the averaged copy has no {name} of shape {tuple(weight.shape)}; give it with "
                "the model's own parameter names (AveragedModel's are in its .module)"
            )
