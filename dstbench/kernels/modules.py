"""Modules of torch that go over the active connections alone, where that is the faster way.

A module is given one of these classes in place of its own (:func:`replacement`), and computes as
before wherever kernels do not take what it is given: other dtypes than float32, autocast, another
device than the CPU, a compiled or traced graph, transforms of torch.func. A copy of such a module
computes as before, too, since nothing is known of the connections of its weights.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils.weak import WeakTensorKeyDictionary

from dstbench.kernels.connections import Connections, pay_together
from dstbench.kernels.functions import (
    convolution,
    convolved_shape,
    image_places,
    normalized_convolution,
    projection,
    token_places,
)
from dstbench.kernels.packing import unpacked
from dstbench.kernels.recurrent import gru_states, sequence_places

known: MutableMapping[Tensor, Connections] = WeakTensorKeyDictionary()
"""The connections of each weight that kernels are used for."""


class SparseConv2d(nn.Conv2d):
    """A convolution of stride 1 or 2, without groups or dilation."""

    def forward(self, input: Tensor) -> Tensor:
        connections = self.connections(input)
        if connections is None:
            return super().forward(input)
        return convolution(input, held(self), self.bias, connections)

    def normalized_forward(
        self, norm: nn.GroupNorm, input: Tensor, plus: Tensor | None, connections: Connections
    ) -> Tensor | None:
        """What :meth:`forward` makes of a normalized input after SiLU, and ``plus`` added to it, by
        these connections; ``None`` where kernels do not compute it."""
        if norm.num_channels != self.in_channels:
            return None
        if plus is not None:
            shape = convolved_shape(input, connections)
            if not takes(plus) or plus.shape not in (shape, (*shape[:2], 1, 1)):
                return None
        return normalized_convolution(input, norm, held(self), self.bias, connections, plus)

    def connections(self, input: Tensor) -> Connections | None:
        """Those of the weight, if a pass over the active ones alone is the faster one."""
        connections = connections_of(held(self), input)
        if connections is None or input.ndim != 4 or not input.numel():
            return None
        n, channels, height, width = input.shape
        if channels != self.in_channels:
            return None
        positions = n * height * width // self.stride[0] ** 2
        return connections if connections.pay(positions, n, image_places) else None


class SparseLinear(nn.Linear):
    """A linear layer."""

    def forward(self, input: Tensor) -> Tensor:
        weight = held(self)
        connections = connections_of(weight, input)
        if connections is None or not input.numel() or input.shape[-1] != self.in_features:
            return super().forward(input)
        n = input.numel() // self.in_features
        if not connections.pay(n, n, token_places):
            return super().forward(input)
        return projection(input, weight, self.bias, connections)


class SparseGRU(nn.GRU):
    """A GRU with biases and without dropout."""

    def forward(self, input: Any, hx: Tensor | None = None) -> Any:
        if hx is not None or not isinstance(input, (Tensor, PackedSequence)):
            return super().forward(input, hx)
        if isinstance(input, PackedSequence):
            return self._forward_packed(input)
        if input.ndim != 3:
            return super().forward(input, hx)
        inputs = input if self.batch_first else input.transpose(0, 1)
        connections = self._connections(inputs)
        if connections is None:
            return super().forward(input, hx)
        states, last = gru_states(self, inputs, None, connections)
        return states if self.batch_first else states.transpose(0, 1), last

    def _forward_packed(self, packed: PackedSequence) -> Any:
        if not takes(packed.data):
            return super().forward(packed)
        inputs, lengths = pad_packed_sequence(packed, batch_first=True)
        connections = self._connections(inputs)
        if connections is None:
            return super().forward(packed)
        states, last = gru_states(self, inputs, lengths, connections)
        order = packed.sorted_indices
        if order is not None:
            states, lengths = states[order], lengths[order]
        data, sizes, *_ = pack_padded_sequence(states, lengths, batch_first=True)
        return PackedSequence(data, sizes, order, packed.unsorted_indices), last

    def states(self, inputs: Tensor, lengths: Tensor) -> Tensor | None:
        """States (N, T, directions · units) of padded sequences (N, T, features), as if they were
        packed, and zero after each one's end; ``None`` where dense kernels are to compute them."""
        connections = self._connections(inputs)
        if connections is None or lengths.shape != inputs.shape[:1]:
            return None
        if lengths.min() < 1 or lengths.max() > inputs.shape[1]:
            return None
        return gru_states(self, inputs, lengths, connections)[0]

    def _connections(self, inputs: Tensor) -> list[list[tuple[Connections, Connections]]] | None:
        """Connections by layer and direction; ``None`` where they are not to be used."""
        if not inputs.numel() or inputs.shape[-1] != self.input_size or not takes(inputs):
            return None
        matrices = self._matrices()
        found = known_among(matrices)
        if len(found) < len(matrices):
            return None
        points = inputs.shape[0] * inputs.shape[1]
        dense_gradient = torch.is_grad_enabled() and any(each.dense_gradient() for each in found)
        n = len(inputs)
        if dense_gradient or not pay_together(
            found, points, lambda library: n / sequence_places(n, library)[1]
        ):
            return None
        pairs = list(zip(found[::2], found[1::2], strict=True))
        ways = 2 if self.bidirectional else 1
        return [pairs[i : i + ways] for i in range(0, len(pairs), ways)]

    def _matrices(self) -> list[nn.Parameter]:
        """weight_ih and weight_hh of each layer and direction."""
        return [
            parameter for name, parameter in self.named_parameters() if name.startswith("weight_")
        ]


def replacement(module: nn.Module) -> type[nn.Module] | None:
    """The class that takes a module's place, if kernels take modules like this one."""
    if type(module) is nn.Conv2d:
        plain = module.groups == 1 and module.dilation == (1, 1) and module.padding_mode == "zeros"
        numeric = not isinstance(module.padding, str)
        square = module.stride in ((1, 1), (2, 2))
        return SparseConv2d if plain and numeric and square else None
    if type(module) is nn.Linear:
        return SparseLinear
    if type(module) is nn.GRU:
        plain = module.bias and not module.dropout and not module.proj_size
        return SparseGRU if plain else None
    return None


def takes(input: Tensor) -> bool:
    """Whether kernels compute with what a module is given."""
    return (
        not torch.compiler.is_compiling()
        and not torch._C._is_tracing()
        and input.dtype == torch.float32
        and input.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
        and type(input) in (Tensor, nn.Parameter)
    )


class _Packed(nn.Module):
    """Shows whole weights to whoever asks the module for one, as its own dense pass does, while its
    parameters are the values of active connections alone."""

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        if isinstance(found, nn.Parameter):
            connections = known.get(found)
            if connections is not None and connections.packed:
                found = unpacked(found, connections)
                found._is_param = True  # or get_parameter() would not return it
        return found

    def __getstate__(self) -> dict[str, Any]:
        """That of a copy, which has whole weights."""
        whole = {name: getattr(self, name) for name in self._parameters}
        copied = {
            name: each if each is None else nn.Parameter(each.detach(), each.requires_grad)
            for name, each in whole.items()
        }
        return self.__dict__ | {"_parameters": copied}


class PackedConv2d(_Packed, SparseConv2d):
    pass


class PackedLinear(_Packed, SparseLinear):
    pass


class PackedGRU(_Packed, SparseGRU):
    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        state["_flat_weights"] = [state["_parameters"][name] for name in self._flat_weights_names]
        del state["_flat_weight_refs"]
        return state


_PACKED: dict[type[nn.Module], type[nn.Module]] = {
    SparseConv2d: PackedConv2d,
    SparseLinear: PackedLinear,
    SparseGRU: PackedGRU,
}
_WHOLE = {packed: whole for whole, packed in _PACKED.items()}


def hold_packed(module: nn.Module, name: str, values: nn.Parameter) -> None:
    """Let one of these modules have the values of active connections in a weight's place."""
    setattr(module, name, values)
    module.__class__ = _PACKED.get(type(module), type(module))


def hold_whole(module: nn.Module, name: str, weight: nn.Parameter) -> None:
    """Let a module have a weight in the place of its values again."""
    module.__class__ = _WHOLE.get(type(module), type(module))
    setattr(module, name, weight)


def stored_plainly(weight: Tensor) -> bool:
    """Whether a weight is stored as kernels read it."""
    return weight.dtype == torch.float32 and weight.device.type == "cpu" and weight.is_contiguous()


def held(module: nn.Conv2d | nn.Linear) -> Tensor:
    """What a module has in its weight's place: the weight, or the values of active connections."""
    held = module._parameters.get("weight")
    return module.weight if held is None else held


def known_among(weights: Iterable[Tensor]) -> list[Connections]:
    """The connections of those weights that have some and are stored as kernels read them."""
    return [known[each] for each in weights if each in known and stored_plainly(each)]


def connections_of(weight: Tensor, input: Tensor) -> Connections | None:
    """The connections of a weight, where kernels compute with what its module is given."""
    return known.get(weight) if takes(input) and stored_plainly(weight) else None
