"""The masks that layers get: by scores, and by what a method makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from dstbench.errors import SparsityError
from dstbench.sparsity.gradients import take_dense_gradients
from dstbench.sparsity.layers import Layer, allot
from dstbench.sparsity.replicas import Replicas

SelectMask = Callable[[Layer, Tensor, Tensor], Tensor]
"""A method's ``select_mask``."""


def take_initial_gradients(
    method: str,
    layers: Sequence[Layer],
    model: nn.Module,
    backward: Callable[[], None] | None,
    replicas: Replicas,
) -> None:
    """Give each layer the gradient that ``backward`` accumulates, averaged over the replicas.

    Raises:
        SparsityError: naming the ``method``, if there is no ``backward``.
    """
    if backward is None:
        raise SparsityError(
            f"{method} chooses its first mask by the gradient of a training batch: give "
            "attach(backward=...), which accumulates it"
        )
    take_dense_gradients(layers, model, backward)
    replicas.average_dense_gradients(layers)


def set_first_masks(
    layers: Sequence[Layer],
    counts: Mapping[str, int],
    first_scores: Callable[[Layer, torch.Generator], Tensor],
    select_mask: SelectMask,
    rng: torch.Generator,
) -> None:
    """Give each layer a first mask, of as many connections as ``counts`` says by its name, and
    take its dense gradient away.

    Raises:
        SparsityError: where no connection would be active, or a mask holds another number.
    """
    allot(layers, counts)
    for layer in layers:
        if layer.density < 1:
            nothing = layer.structure.of_groups(torch.zeros_like(layer.mask))
            layer.replace_mask(choose_mask(layer, nothing, first_scores(layer, rng), select_mask))
    for layer in layers:
        del layer.dense_gradient


def choose_mask(layer: Layer, kept: Tensor, scores: Tensor, select_mask: SelectMask) -> Tensor:
    """The mask, in the shape of the weight, that ``select_mask`` makes of a layer's groups.

    Args:
        kept: groups that stay, in the shape of groups.
        scores: scores of connections, in the shape of the weight.

    Raises:
        SparsityError: for a mask of another shape than that of the groups.
    """
    mask = select_mask(groups_of(layer), kept, layer.structure.sums(scores))
    if mask.shape != kept.shape:
        raise SparsityError(
            f"the mask that was selected for {layer.name} has the shape {tuple(mask.shape)}, "
            f"instead of that of what is kept, {tuple(kept.shape)}"
        )
    return layer.structure.of_connections(mask)


def groups_of(layer: Layer) -> Layer:
    """A layer's groups of connections, as a layer whose connections they are.

    Its weight and dense gradient are sums of magnitudes. Where each connection is by itself, it is
    the layer.
    """
    if layer.group == 1:
        return layer
    structure = layer.structure
    weight = structure.sums(layer.weight.detach().abs())
    groups = Layer(layer.name, nn.Parameter(weight, requires_grad=False))
    groups.mask = structure.of_groups(layer.mask).clone()
    groups.allot(layer.active // layer.group)
    if layer.has_dense_gradient:
        groups.dense_gradient = structure.sums(layer.dense_gradient.abs())
    return groups
