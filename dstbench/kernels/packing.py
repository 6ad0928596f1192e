"""Weights as the values of their active connections alone."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dstbench.kernels.connections import CLayer, Connections
from dstbench.kernels.library import Long, address


def packed(weight: Tensor, connections: Connections) -> Tensor:
    """The values of active connections, (active,), of a weight or what has its shape, in the order
    in which kernels walk them."""
    if _is_differentiated(weight):
        return _Pack.apply(weight, connections)  # type: ignore[no-any-return]
    values = weight.new_empty(connections.active)
    _call(connections.library.pack_weight, weight, values, connections.index())
    return values


def packed_gradient(gradient: Tensor, connections: Connections) -> Tensor:
    """The gradient of values, of that of a whole weight, which is added up where the step being
    taken wants it."""
    if connections.dense_gradient():
        connections.add_dense_gradient(gradient.detach())
    return packed(gradient, connections)


def unpacked(values: Tensor, connections: Connections) -> Tensor:
    """The weight that has these values, (active,), at its active connections and zero elsewhere."""
    if _is_differentiated(values):
        return _Unpack.apply(values, connections)  # type: ignore[no-any-return]
    weight = values.new_empty(connections.mask.shape)
    _call(connections.library.unpack_weight, values, weight, connections.index())
    return weight


def carried(values: Sequence[Tensor], before: CLayer, connections: Connections) -> Sequence[Tensor]:
    """What connections had under an index before, each (before,), for those that are active now,
    each (active,); zero for others than then."""
    given = [each.contiguous() for each in values]
    now = [each.new_empty(connections.active) for each in values]
    layers = map(ctypes.byref, (before, connections.index()))
    threads, count = Long(torch.get_num_threads()), Long(len(given))
    connections.library.carry_values(*layers, threads, count, _addresses(given), _addresses(now))
    return now


def _addresses(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*(each.data_ptr() for each in tensors))


def _is_differentiated(tensor: Tensor) -> bool:
    return torch.is_grad_enabled() and tensor.requires_grad


def _call(kernel: Callable[..., object], given: Tensor, result: Tensor, layer: CLayer) -> None:
    given = given.contiguous()  # which lives until the kernel is done
    threads = Long(torch.get_num_threads())
    kernel(ctypes.byref(layer), threads, address(given), address(result))


class _Pack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, connections: Connections) -> Tensor:
        ctx.connections = connections
        return packed(weight, connections)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return unpacked(gradient, ctx.connections), None


class _Unpack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, connections: Connections) -> Tensor:
        ctx.connections = connections
        return unpacked(values, connections)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        wanted = ctx.connections.dense_gradient()  # and is kept, of what others may have, too
        return packed_gradient(gradient.clone() if wanted else gradient, ctx.connections), None
