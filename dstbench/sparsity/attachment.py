"""The check of what a sparsifier is attached to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from dstbench.errors import SparsityError


def check_attachable(
    weights: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    averaged: nn.Module | None,
    taken: Iterable[nn.Parameter],
) -> None:
    """Refuse weights that cannot be kept masked while ``optimizer`` trains them.

    ``weights`` are by parameter name; ``averaged`` is the copy of their network that is masked with
    them; ``taken`` are the weights that other sparsifiers mask.

    Raises:
        SparsityError: if there are none, or if one is given twice, frozen, sharded, masked by
            another sparsifier, not the optimizer's, stored with gaps, or not in the averaged copy
            with the same shape; and for what is no optimizer of torch's or no averaged copy.
    """
    _check_types(optimizer, averaged)
    if not weights:
        raise SparsityError("the model has no weights that may be masked")
    if len({id(weight) for weight in weights.values()}) < len(weights):
        raise SparsityError("the same weight is given under two names; give it once")
    optimized = {id(p) for group in optimizer.param_groups for p in group["params"]}
    masked = {id(weight) for weight in taken}
    shapes = {} if averaged is None else {n: p.shape for n, p in averaged.named_parameters()}
    for name, weight in weights.items():
        if not weight.requires_grad:
            raise SparsityError(f"{name} is frozen, and only trained weights can be masked")
        if hasattr(weight, "placements") or hasattr(weight, "_fsdp_flattened"):
            raise SparsityError(
                f"{name} is sharded over processes (a {type(weight).__name__}), of which none sees "
                "all connections; train replicated weights, with DistributedDataParallel"
            )
        if id(weight) in masked:
            raise SparsityError(
                f"{name} is masked by another sparsifier already; detach() that one first, or give "
                "each its own weights (attach(weights=...))"
            )
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


def _check_types(optimizer: Any, averaged: Any) -> None:
    if isinstance(optimizer, list | tuple | dict):
        raise SparsityError(
            f"attach takes one optimizer, not a {type(optimizer).__name__} of them: a topology "
            "update follows the step of the optimizer that trains all masked weights; put them "
            "into one, or attach a sparsifier to each, with its own weights (attach(weights=...))"
        )
    if not (isinstance(optimizer, torch.optim.Optimizer) and hasattr(optimizer, "param_groups")):
        raise SparsityError(
            f"a {type(optimizer).__name__} is no torch.optim.Optimizer, whose steps a sparsifier "
            "follows; give the optimizer itself, such as the .optimizer of a wrapper"
        )
    if averaged is not None and not isinstance(averaged, nn.Module):
        raise SparsityError(
            f"averaged is a {type(averaged).__name__}, no module: give a copy of the model with "
            "averaged weights, such as the .module of torch's AveragedModel"
        )
