"""Gradients as they are accumulated, those of inactive connections too."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from dstbench.sparsity.layers import Layer, apply_mask_
from dstbench.sparsity.selection import together


class GradientRecorder:
    """Sees the gradient of each layer before it is masked, over the micro-batches of one step.

    A gradient that was set to zero, or dropped, since the pass before begins anew: the step for
    which it was accumulated was left out.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[weakref.ref[Tensor], int]] = {}
        """By layer: its gradient after the latest pass, and the number of writes to it by then."""
        self._finite: dict[str, Tensor] = {}

    @property
    def all_finite(self) -> bool:
        """Whether all gradients that were seen are finite."""
        return all(together(self._finite.values()))

    def record(
        self, layer: Layer, gradient: Tensor, *, dense: bool, added: Tensor | None = None
    ) -> None:
        """Take in what the latest backward pass has added to the gradient of a layer's parameter;
        with ``dense``, into ``layer.dense_gradient``, for which ``added`` is what a pass has added
        to the gradient of the weight, where that is not the parameter."""
        finite = is_finite(gradient if added is None else added)
        if self._goes_on(layer, gradient):
            finite.logical_and_(self._finite[layer.name])
        else:
            del layer.dense_gradient
        self._finite[layer.name] = finite
        if added is not None and layer.has_dense_gradient:
            layer.dense_gradient.add_(added)
        elif added is not None:
            layer.dense_gradient = added
        elif dense and not layer.has_dense_gradient:
            layer.dense_gradient = torch.empty_like(layer.weight).copy_(gradient)
        elif dense:  # the active weights' gradient holds the earlier micro-batches already
            apply_mask_(layer.dense_gradient, ~layer.mask)
            layer.dense_gradient.add_(gradient)
        # What follows in the hook, masking, writes to it once more, if there is a mask.
        writes = gradient._version + (layer.values is None and layer.density < 1)
        self._seen[layer.name] = weakref.ref(gradient), writes

    def _goes_on(self, layer: Layer, gradient: Tensor) -> bool:
        """Whether this is the gradient of an earlier pass, to which autograd alone has added."""
        seen, writes = self._seen.get(layer.name, (None, -1))
        return seen is not None and seen() is gradient and gradient._version == writes + 1

    def clear(self, layers: Iterable[Layer]) -> None:
        """Forget what was seen: the step is taken."""
        self._seen.clear()
        self._finite.clear()
        for layer in layers:
            del layer.dense_gradient


def take_dense_gradients(
    layers: Iterable[Layer], model: nn.Module, backward: Callable[[], None]
) -> None:
    """Give each layer the gradient that ``backward`` accumulates, and leave none in the model."""
    model.zero_grad()
    backward()
    for layer in layers:
        gradient = layer.weight.grad
        layer.dense_gradient = torch.zeros_like(layer.weight) if gradient is None else gradient
    model.zero_grad()


def is_finite(tensor: Tensor) -> Tensor:
    """Whether all elements are finite, as a boolean element beside them, for :func:`together`;
    their sum need not be finite."""
    if tensor.is_sparse:
        tensor = tensor.coalesce().values()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if not tensor.numel() or (tensor.is_cpu and math.isfinite(tensor.sum().item())):
        # A sum that is no number may have overflown.
        return torch.ones((), dtype=torch.bool, device=tensor.device)
    low, high = torch.aminmax(tensor)
    return low.isfinite() & high.isfinite()


def are_finite(optimizer: torch.optim.Optimizer) -> bool:
    """Whether all gradients that the optimizer has seen are finite."""
    groups = optimizer.param_groups
    gradients = (p.grad for group in groups for p in group["params"] if p.grad is not None)
    return all(together(map(is_finite, gradients)))
