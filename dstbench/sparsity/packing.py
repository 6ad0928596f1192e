"""Masked weights held as the values of their active connections alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from dstbench.kernels import library
from dstbench.kernels.modules import hold_packed, hold_whole, known, stored_plainly
from dstbench.kernels.packing import carried, packed, unpacked
from dstbench.kernels.use import KernelUse
from dstbench.sparsity.layers import Layer
from dstbench.sparsity.optimizers import starts_at_zero, state_of

DENSEST = 0.5
"""Density above which a weight takes less as it is."""

LEAST = 2**16
"""Weights, of all layers together, below which nothing is saved that kernels, where it is not said
that they are wanted, would have to be compiled for."""


@dataclass(frozen=True)
class _Held:
    """A weight of one network, the parameter of its values, and who has that in the weight's place:
    modules, and the names there."""

    weight: nn.Parameter
    values: nn.Parameter
    places: Sequence[tuple[nn.Module, str]]


class Packing:
    """Holds layers that kernels take as 1-D parameters of their active values, in the weights'
    places: in the network, in its averaged copy, and in the optimizer with its state.

    Whole weights are NaN then, but while they are :meth:`shown`.
    """

    def __init__(
        self, layers: Sequence[Layer], networks: Sequence[nn.Module], kernels: KernelUse
    ) -> None:
        self._layers = layers
        self._networks = networks
        self._kernels = kernels
        self._held: dict[str, list[_Held]] = {}
        """Of each packed layer, by its name: in the network, and in its averaged copy."""
        self._whole: set[str] = set()
        """Layers that cannot be packed."""

    @property
    def is_on(self) -> bool:
        """Whether any layer is packed now."""
        return bool(self._held)

    @torch.no_grad()
    def pack(self, optimizer: torch.optim.Optimizer) -> list[Layer]:
        """Pack the layers that can be packed, whose gradients are dropped; those of them that were
        whole."""
        wanted = [layer for layer in self._layers if self._pays(layer)]
        if not (self._is_worth_it(wanted) and starts_at_zero(optimizer)):
            return []
        if _replicated() or library.why_not():
            return []
        trained = {id(each) for group in optimizer.param_groups for each in group["params"]}
        networks = [self._places(network) for network in self._networks]
        able = [
            layer
            for layer in wanted
            if id(layer.weight) in trained and all(layer.name in places for places in networks)
        ]
        self._whole |= {layer.name for layer in wanted} - {layer.name for layer in able}
        others: dict[int, nn.Parameter] = {}
        for layer in able:
            connections = self._kernels.layers[layer.name]
            self._held[layer.name] = [
                _Held(weight, nn.Parameter(packed(weight.detach(), connections)), modules)
                for weight, modules in (places[layer.name] for places in networks)
            ]
            for each in self._held[layer.name]:
                each.values.requires_grad_(each.weight.requires_grad)
                known[each.values] = connections
                self._move(layer, optimizer, each.weight, each.values, packed)
                for module, name in each.places:
                    hold_packed(module, name, each.values)
                _hide(each.weight)
                others[id(each.weight)] = each.values
            connections.packed = True
            layer.values = self._held[layer.name][0].values
        _exchange(optimizer, others)
        return able

    @torch.no_grad()
    def unpack(self, optimizer: torch.optim.Optimizer) -> None:
        """Hold all layers whole again, zero at inactive connections; gradients of those that were
        packed are dropped."""
        others: dict[int, nn.Parameter] = {}
        for layer in self._layers:
            for each in self._held.pop(layer.name, ()):
                connections = self._kernels.layers[layer.name]
                each.weight.data = unpacked(each.values.detach(), connections)
                each.weight.requires_grad_(each.values.requires_grad)
                self._move(layer, optimizer, each.values, each.weight, unpacked)
                for module, name in each.places:
                    hold_whole(module, name, each.weight)
                others[id(each.values)] = each.weight
                connections.packed = False
            layer.values = None
        _exchange(optimizer, others)
        self._whole.clear()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """A time in which layers have whole weights, and gradients of them, beside what is held."""
        for layer, held in self._packed():
            connections = self._kernels.layers[layer.name]
            held.weight.data = unpacked(held.values.detach(), connections)
            if held.values.grad is not None:
                held.weight.grad = unpacked(held.values.grad, connections)
        try:
            yield
        finally:
            for _, held in self._packed():
                _hide(held.weight)

    @contextmanager
    def remasked(self, layer: Layer, optimizer: torch.optim.Optimizer) -> Iterator[None]:
        """A time in which a layer gets another mask, and its weight, which is :meth:`shown`, other
        values: what is held of it follows. New connections begin with averages and state of zero.
        """
        if layer.values is None:
            yield
            return
        connections = self._kernels.layers[layer.name]
        averaged = [each.values for each in self._held[layer.name][1:]]
        following = [*averaged, *state_of(optimizer, layer.values)]
        before = connections.index()
        yield
        layer.values.data = packed(layer.weight.detach(), connections)
        layer.values.grad = None
        values = carried([each.detach() for each in following], before, connections)
        for each, now in zip(following, values, strict=True):
            each.data = now

    def in_place(self, layer: Layer, mask: Tensor) -> Tensor:
        """Which elements of the layer's parameter are those of a boolean mask in the weight's shape
        of connections that are all active."""
        if layer.values is None:
            return mask
        return packed(mask.float(), self._kernels.layers[layer.name]).bool()

    def _packed(self) -> list[tuple[Layer, _Held]]:
        """The packed layers, and what is held of them in the network."""
        held = self._held
        return [(layer, held[layer.name][0]) for layer in self._layers if layer.name in held]

    def _is_worth_it(self, wanted: Sequence[Layer]) -> bool:
        asked = self._kernels.choice.mode == "sparse" or self.is_on
        weights = sum(layer.mask.numel() for layer in wanted)
        return bool(wanted) and (asked or weights >= LEAST)

    def _pays(self, layer: Layer) -> bool:
        """Whether to pack a layer that is whole, if it can be."""
        return (
            layer.values is None
            and layer.weight.requires_grad
            and layer.density <= DENSEST
            and layer.name in self._kernels.layers
            and layer.name not in self._whole
        )

    def _places(
        self, network: nn.Module
    ) -> dict[str, tuple[nn.Parameter, list[tuple[nn.Module, str]]]]:
        """The weights of a network that can be packed, by parameter name, and where they are."""
        places: dict[int, list[tuple[nn.Module, str]]] = {}
        for module in network.modules():
            for name, parameter in module._parameters.items():
                places.setdefault(id(parameter), []).append((module, name))
        weights = dict(network.named_parameters())
        found = {
            name: (weights[name], places[id(weights[name])])
            for name in self._kernels.layers
            if name in weights and stored_plainly(weights[name])
        }
        using = self._kernels.modules
        return {name: each for name, each in found.items() if all(m in using for m, _ in each[1])}

    def _move(
        self,
        layer: Layer,
        optimizer: torch.optim.Optimizer,
        old: nn.Parameter,
        new: nn.Parameter,
        convert: Callable[..., Tensor],
    ) -> None:
        """Give one parameter of a layer the optimizer's state of another."""
        if old in optimizer.state:
            following = {id(each) for each in state_of(optimizer, old)}
            connections = self._kernels.layers[layer.name]
            optimizer.state[new] = {
                key: convert(value, connections) if id(value) in following else value
                for key, value in optimizer.state.pop(old).items()
            }


def _hide(weight: nn.Parameter) -> None:
    """Let a weight be NaN, in its shape, so that whoever has kept it is not misled; one element."""
    weight.data, weight.grad = weight.new_full((), math.nan).expand(weight.shape), None


def _exchange(optimizer: torch.optim.Optimizer, others: dict[int, nn.Parameter]) -> None:
    """Let an optimizer train other parameters than those of these ids."""
    for group in optimizer.param_groups:
        group["params"] = [others.get(id(each), each) for each in group["params"]]


def _replicated() -> bool:
    """Whether gradients may be exchanged with other processes, which know of whole weights."""
    return distributed.is_available() and distributed.is_initialized()
