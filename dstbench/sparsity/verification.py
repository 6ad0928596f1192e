"""Whether inactive weights are zero: looked at, or known from what was written to."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from dstbench.errors import SparsityError
from dstbench.sparsity.layers import Layer
from dstbench.sparsity.selection import counted, flat, together


def verify(layers: Iterable[Layer], chosen: Mapping[str, int], averaged: nn.Module | None) -> None:
    """Make sure that each layer has as many active connections as were chosen, in its structure,
    and no others.

    ``chosen`` are the numbers of the latest topology update, or the first ones, by layer name.

    Raises:
        SparsityError: naming the layer, what is wrong with it, and by how much.
    """
    layers = list(layers)
    held = together(counted(layer.mask) for layer in layers)
    outside = together(_outside(layer, layer.weight) for layer in layers)
    averaged_outside = [0] * len(layers)
    if averaged is not None:
        averaged_outside = together(
            _outside(layer, averaged.get_parameter(layer.name)) for layer in layers
        )
    counts = zip(layers, held, outside, averaged_outside, strict=True)
    for layer, active, weights, averaged_weights in counts:
        _check_mask(layer, active, chosen[layer.name])
        _check_zero(layer, "weight", weights)
        _check_zero(layer, "averaged weight", averaged_weights)


def _outside(layer: Layer, weight: Tensor) -> Tensor:
    """The number of elements outside the layer's mask that are not zero."""
    if layer.density == 1 or layer.values is not None:
        return torch.zeros((), dtype=torch.int64, device=layer.mask.device)
    return counted(_is_not_zero(weight.detach()).logical_and_(~layer.mask))


def _check_mask(layer: Layer, held: int, chosen: int) -> None:
    if held != layer.active:
        raise SparsityError(
            f"the mask of {layer.name} holds {held} of {layer.mask.numel()} connections, "
            f"instead of {layer.active}"
        )
    layer.check_structure(layer.mask)
    if layer.active != chosen:
        raise SparsityError(
            f"{layer.name} has {layer.active} active connections, where {chosen} "
            "were chosen in the latest topology update, or at first: a method says by "
            "density_at or counts_after_update how many there are"
        )


def _check_zero(layer: Layer, what: str, outside: int) -> None:
    if outside:
        inactive = layer.mask.numel() - layer.active
        raise SparsityError(
            f"the {what} {layer.name} is not zero at {outside} of {inactive} inactive connections: "
            "something has written to it since the latest step (its initialisation, "
            "load_state_dict, an averaging of weights); load the sparsifier's state, too, or take "
            "a step, which masks it"
        )


def _is_not_zero(tensor: Tensor) -> Tensor:
    """Where a tensor is not zero, in its strides; NumPy compares several times as fast as torch."""
    if tensor.is_cpu and tensor.dtype != torch.bfloat16:
        return torch.from_numpy(np.asarray(np.not_equal(tensor.numpy(), 0)))
    return tensor.ne(0)


PROBES = 128
"""Number of places in a weight at which writes are looked for."""


class WriteDetector:
    """Tells writes to weights and gradients that are not the engine's.

    torch counts writes to a tensor, but not those through ``.data``, and not whether one leaves
    zeros as they are (clipping does). So writes to what was noted are looked for at some inactive
    connections, which noise, centralisation or a new initialisation do not leave at zero.
    """

    def __init__(self) -> None:
        self._weights: dict[str, int] = {}
        self._gradients: dict[str, tuple[weakref.ref[Tensor], int]] = {}
        self._probes: dict[str, tuple[Tensor, Tensor]] = {}
        """Inactive places of each weight that was looked at, and as many zeros."""

    def note_mask(self, layer: Layer) -> None:
        """The layer's weight is masked by another mask than before."""
        self._probes.pop(layer.name, None)
        self.note_weight(layer)

    def note_weight(self, layer: Layer) -> None:
        """The layer's weight is masked."""
        self._weights[layer.name] = layer.parameter._version

    def note_gradient(self, layer: Layer) -> None:
        """The gradient of the layer's weight is masked."""
        gradient = layer.weight.grad
        if gradient is not None:
            self._gradients[layer.name] = weakref.ref(gradient), gradient._version

    def weight_was_written(self, layer: Layer) -> bool:
        """Whether something has written to the weight since it was noted, as torch counts."""
        return self._weights.get(layer.name) != layer.parameter._version

    def gradient_was_written(self, layer: Layer) -> bool:
        """Whether the gradient is another one than was noted, or is seen not to be masked."""
        gradient = layer.weight.grad
        if gradient is None:
            return False
        noted = self._gradients.get(layer.name)
        if noted is None or noted[0]() is not gradient:
            return True
        return self._is_uncovered(layer, gradient)

    def gradient_is_another(self, layer: Layer) -> bool:
        """Whether it is another gradient than the noted one, or torch has counted a write to it."""
        gradient = layer.weight.grad
        if gradient is None:
            return False
        noted = self._gradients.get(layer.name)
        return noted is None or noted[0]() is not gradient or noted[1] != gradient._version

    def weight_is_uncovered(self, layer: Layer) -> bool:
        """Whether the weight is seen not to be zero at an inactive connection."""
        return self._is_uncovered(layer, layer.weight)

    def _is_uncovered(self, layer: Layer, tensor: Tensor) -> bool:
        if tensor.stride() != layer.mask.stride():
            return True
        if layer.name not in self._probes:
            places = _probed(layer.mask.numel(), layer.mask.device)
            places = places[~flat(layer.mask)[places]]
            zeros = layer.weight.new_zeros(len(places), requires_grad=False)
            self._probes[layer.name] = places, zeros
        places, zeros = self._probes[layer.name]
        return not torch.equal(flat(tensor.detach()).index_select(0, places), zeros)


@functools.cache
def _probed(count: int, device: torch.device) -> Tensor:
    """Places spread evenly over so many elements, the first and the last among them."""
    last = count - 1  # in whole numbers: float32 rounds it to one beyond the end
    return torch.arange(PROBES, device=device) * last // (PROBES - 1)
