"""Weights as the values of their active connections alone."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from dstbench.kernels.connections import Connections
from dstbench.kernels.library import Long, address


def packed(weight: Tensor, connections: Connections) -> Tensor:
    """The values of active connections, (active,), of a weight or what has its shape, in the order
    in which kernels walk them."""
    values: Tensor = _Pack.apply(weight, connections)
    return values


def packed_gradient(gradient: Tensor, connections: Connections) -> Tensor:
    """The gradient of values, of that of a whole weight, which is added up where the step being
    taken wants it."""
    if connections.dense_gradient():
        connections.add_dense_gradient(gradient.detach())
    return packed(gradient, connections)


def unpacked(values: Tensor, connections: Connections) -> Tensor:
    """The weight that has these values, (active,), at its active connections and zero elsewhere."""
    weight: Tensor = _Unpack.apply(values, connections)
    return weight


class _Pack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, connections: Connections) -> Tensor:
        ctx.connections = connections
        weight = weight.contiguous()
        values = weight.new_empty(connections.active)
        layer = ctypes.byref(connections.index())
        threads = Long(torch.get_num_threads())
        connections.library.pack_weight(layer, threads, address(weight), address(values))
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return unpacked(gradient, ctx.connections), None


class _Unpack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, connections: Connections) -> Tensor:
        ctx.connections = connections
        values = values.contiguous()
        weight = values.new_empty(connections.mask.shape)
        layer = ctypes.byref(connections.index())
        threads = Long(torch.get_num_threads())
        connections.library.unpack_weight(layer, threads, address(values), address(weight))
        return weight

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        wanted = ctx.connections.dense_gradient()  # and is kept, of what others may have, too
        return packed_gradient(gradient.clone() if wanted else gradient, ctx.connections), None
