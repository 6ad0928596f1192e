"""Masked weights held as their active values alone, from one topology update to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from dstbench.kernels import library
from dstbench.kernels.connections import Connections
from dstbench.kernels.modules import hold_packed, hold_whole, known, stored_plainly
from dstbench.kernels.packing import packed, unpacked
from dstbench.kernels.use import KernelUse
from dstbench.sparsity.layers import Layer
from dstbench.sparsity.optimizers import starts_at_zero

DENSEST = 0.5
"""Density above which a weight takes less as it is."""

Slot = tuple[nn.Module, str]
"""A module, and the name by which it holds a weight."""


@dataclass(frozen=True)
class _Packed:
    """A weight of one network, and the values that are in its places meanwhile."""

    weight: nn.Parameter
    values: nn.Parameter
    slots: Sequence[Slot]


class Packing:
    """Holds the layers that kernels compute as their active values, 1-D parameters in the weights'
    places: in the network, in its averaged copy, and in the optimizer with its state.

    A step then reads and writes active weights alone. What else would look at such a weight finds
    it without elements.
    """

    def __init__(
        self, layers: Sequence[Layer], networks: Sequence[nn.Module], kernels: KernelUse
    ) -> None:
        self._layers = layers
        self._networks = networks
        self._kernels = kernels
        self._held: dict[str, list[_Packed]] = {}

    @property
    def is_on(self) -> bool:
        """Whether any weight is held so now."""
        return bool(self._held)

    @torch.no_grad()
    def pack(self, optimizer: torch.optim.Optimizer) -> None:
        """Hold what can be held as active values; gradients are dropped."""
        taken = self._kernels.layers
        layers = [each for each in self._layers if each.density <= DENSEST and each.name in taken]
        if not layers or not starts_at_zero(optimizer) or _replicated() or library.why_not():
            return
        slots = [self._slots(network) for network in self._networks]
        for name in (layer.name for layer in layers):
            if all(name in found for found in slots):
                self._held[name] = [
                    _Packed(weight, nn.Parameter(packed(weight.detach(), taken[name])), places)
                    for weight, places in (found[name] for found in slots)
                ]
        self._swap(optimizer, True)

    @torch.no_grad()
    def unpack(self, optimizer: torch.optim.Optimizer) -> None:
        """Hold whole weights again, zero at inactive connections; gradients are dropped."""
        self._swap(optimizer, False)
        self._held.clear()

    def _swap(self, optimizer: torch.optim.Optimizer, packs: bool) -> None:
        """Put values in the places of weights, or weights back into theirs."""
        others: dict[int, nn.Parameter] = {}
        for layer in self._layers:
            for each in self._held.get(layer.name, ()):
                connections = self._kernels.layers[layer.name]
                old, new = (each.weight, each.values) if packs else (each.values, each.weight)
                if not packs:
                    new.data = unpacked(old.detach(), connections)
                _move(optimizer, old, new, packed if packs else unpacked, connections)
                for module, name in each.slots:
                    (hold_packed if packs else hold_whole)(module, name, new)
                old.data, old.grad = old.new_empty(0), None
                known[each.values] = connections
                connections.packed = packs
                others[id(old)] = new
            held = self._held.get(layer.name)
            layer.values = held[0].values if held and packs else None
        for group in optimizer.param_groups:
            group["params"] = [others.get(id(each), each) for each in group["params"]]

    def _slots(self, network: nn.Module) -> dict[str, tuple[nn.Parameter, list[Slot]]]:
        """The weights of a network that can be held so, by parameter name, and who holds them."""
        found: dict[int, list[Slot]] = {}
        for module in network.modules():
            for name, parameter in module._parameters.items():
                found.setdefault(id(parameter), []).append((module, name))
        weights = dict(network.named_parameters())
        return {
            name: (weights[name], found[id(weights[name])])
            for name in self._kernels.layers
            if stored_plainly(weights[name])
            and all(module in self._kernels.modules for module, _ in found[id(weights[name])])
        }


def _move(
    optimizer: torch.optim.Optimizer,
    old: nn.Parameter,
    new: nn.Parameter,
    convert: Callable[[Tensor, Connections], Tensor],
    connections: Connections,
) -> None:
    """Give one parameter the optimizer's state of another."""
    if old not in optimizer.state:
        return
    state: Mapping[str, Any] = optimizer.state.pop(old)
    optimizer.state[new] = {
        key: convert(value, connections)
        if isinstance(value, Tensor) and value.shape == old.shape
        else value
        for key, value in state.items()
    }


def _replicated() -> bool:
    """Whether gradients are exchanged with other processes, which know of whole weights."""
    return distributed.is_available() and distributed.is_initialized()
