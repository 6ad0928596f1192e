"""Layers as differentiable functions that go over the active connections alone."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dstbench.kernels.connections import CLayer, Connections
from dstbench.kernels.library import Long, address
from dstbench.kernels.packing import packed_gradient, unpacked

_OF_ONE_THREAD = 2**20
"""Products that one thread computes in less time than several wait for each other."""

_Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]
"""Those of inputs, weight and bias."""


def convolution(
    images: Tensor, weight: Tensor, bias: Tensor | None, connections: Connections
) -> Tensor:
    """What ``torch.nn.functional.conv2d`` makes of images (N, C, H, W), from active weights."""
    result: Tensor = _Convolution.apply(images.contiguous(), weight, bias, connections)
    return result


def projection(
    tokens: Tensor, weight: Tensor, bias: Tensor | None, connections: Connections
) -> Tensor:
    """What ``torch.nn.functional.linear`` makes of tokens (…, features), from active weights."""
    result: Tensor = _Projection.apply(tokens.contiguous(), weight, bias, connections)
    return result


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, connections: Connections
    ) -> Tensor:
        layer = connections.index()
        n, _, height, width = images.shape
        rows = (height + 2 * layer.pad_rows - layer.kernel_rows) // layer.stride + 1
        columns = (width + 2 * layer.pad_columns - layer.kernel_columns) // layer.stride + 1
        out = images.new_empty(n, layer.outputs, rows, columns)
        kernel = connections.library.convolve
        return _compute(ctx, kernel, (n, height, width), images, weight, bias, connections, out)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return _gradients(
            ctx, ctx.connections.library.convolve_backward, gradient, _dense_of_convolution
        )


class _Projection(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, weight: Tensor, bias: Tensor | None, connections: Connections
    ) -> Tensor:
        layer, library = connections.index(), connections.library
        n = tokens.numel() // layer.inputs
        sizes = n, _columns(n, library)
        out = tokens.new_empty(*tokens.shape[:-1], layer.outputs)
        return _compute(ctx, library.project, sizes, tokens, weight, bias, connections, out)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return _gradients(
            ctx, ctx.connections.library.project_backward, gradient, _dense_of_projection
        )


def _compute(
    ctx: Any,
    kernel: Callable[..., object],
    sizes: Sequence[int],
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    connections: Connections,
    out: Tensor,
) -> Tensor:
    """The forward pass of a layer into ``out``; ``sizes`` are those of the kernel's arguments."""
    layer, active = connections.index(), connections.active
    values = weight.detach() if connections.packed else inputs.new_empty(active)
    ctx.sizes = _threads(active * out.numel() // layer.outputs), *map(Long, sizes)
    kernel(
        ctypes.byref(layer),
        *ctx.sizes,
        *map(address, (inputs, weight, bias, values, out)),
    )
    ctx.save_for_backward(inputs, weight, values)
    ctx.connections, ctx.dense = connections, connections.dense_gradient()
    return out


def _gradients(
    ctx: Any,
    kernel: Callable[..., object],
    gradient: Tensor,
    dense: Callable[[CLayer, Tensor, Tensor, Tensor, Sequence[bool]], _Gradients],
) -> tuple[Tensor | None, ...]:
    """Gradients of a layer's input, weight and bias, of which ``dense`` makes those that are asked
    for over all weights."""
    inputs, weight, values = ctx.saved_tensors
    connections, layer = ctx.connections, ctx.connections.index()
    if torch.is_grad_enabled():  # they are to be differentiated themselves
        whole = unpacked(weight, connections) if connections.packed else weight
        of_inputs, of_weight, of_bias = dense(
            layer, gradient, inputs, whole, ctx.needs_input_grad[:3]
        )
        return of_inputs, _of_parameter(of_weight, connections), of_bias, None
    gradient = gradient.contiguous()
    of_inputs, of_weight, of_bias = _results(ctx, inputs, weight, layer.outputs)
    kernel(
        ctypes.byref(layer),
        *ctx.sizes,
        *map(address, (inputs, values, gradient, of_inputs, of_weight, of_bias)),
    )
    if of_weight is not None:
        connections.note_gradient(of_weight)
    elif ctx.dense and ctx.needs_input_grad[1]:
        whole = inputs.new_empty(connections.mask.shape) if connections.packed else weight
        of_weight = dense(layer, gradient, inputs, whole, (False, True, False))[1]
        of_weight = _of_parameter(of_weight, connections)
    return of_inputs, of_weight, of_bias, None


def _of_parameter(of_weight: Tensor | None, connections: Connections) -> Tensor | None:
    """The gradient of what is held of a weight, of that of the whole one."""
    if of_weight is None or not connections.packed:
        return of_weight
    return packed_gradient(of_weight, connections)


def _dense_of_convolution(
    layer: CLayer, gradient: Tensor, images: Tensor, weight: Tensor, wanted: Sequence[bool]
) -> _Gradients:
    found: _Gradients = torch.ops.aten.convolution_backward(
        gradient, images, weight, [layer.outputs], [layer.stride] * 2,
        [layer.pad_rows, layer.pad_columns], [1, 1], False, [0, 0], 1, wanted,
    )  # fmt: skip
    return found


def _dense_of_projection(
    layer: CLayer, gradient: Tensor, tokens: Tensor, weight: Tensor, wanted: Sequence[bool]
) -> _Gradients:
    of_outputs = gradient.reshape(-1, layer.outputs)
    return (
        gradient @ weight if wanted[0] else None,
        of_outputs.mT @ tokens.reshape(-1, layer.inputs) if wanted[1] else None,
        of_outputs.sum(0) if wanted[2] else None,
    )


def image_places(n: int, library: ctypes.CDLL) -> int:
    """Number of images that the vectors have room for in which so many are packed."""
    lanes: int = library.lanes()
    return -(-n // lanes) * lanes


def token_places(n: int, library: ctypes.CDLL) -> int:
    """Number of tokens that the vectors have room for in which so many are packed."""
    block: int = _columns(n, library) * library.lanes()
    return -(-n // block) * block


def _columns(n: int, library: ctypes.CDLL) -> int:
    """Vectors of a block of tokens."""
    lanes: int = library.lanes()
    return min(16, -(-n // lanes))


def _results(
    ctx: Any, inputs: Tensor, weight: Tensor, outputs: int
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Tensors for the gradients that the kernels are to compute, of input, weight and bias."""
    of_input, of_weight, of_bias, _ = ctx.needs_input_grad
    return (
        torch.empty_like(inputs) if of_input else None,
        torch.empty_like(weight) if of_weight and not ctx.dense else None,
        weight.new_empty(outputs) if of_bias else None,
    )


def _threads(products: int) -> ctypes.c_int64:
    """Threads for so many products of a weight and an input: all, or one."""
    return Long(torch.get_num_threads() if products > _OF_ONE_THREAD else 1)
