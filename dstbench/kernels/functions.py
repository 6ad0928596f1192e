"""Layers as differentiable functions that go over the active connections alone."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_weight

from dstbench.kernels.connections import CLayer, Connections
from dstbench.kernels.fixed import known_values
from dstbench.kernels.library import Long, address
from dstbench.kernels.packing import packed_gradient, unpacked

_OF_ONE_THREAD = 2**20
"""Products that one thread computes in less time than several wait for each other."""


def convolution(
    images: Tensor, weight: Tensor, bias: Tensor | None, connections: Connections
) -> Tensor:
    """What ``torch.nn.functional.conv2d`` makes of images (N, C, H, W), from active weights."""
    result: Tensor = _Convolution.apply(images.contiguous(), weight, bias, connections)
    return result


def normalized_convolution(
    images: Tensor,
    norm: nn.GroupNorm,
    weight: Tensor,
    bias: Tensor | None,
    connections: Connections,
    plus: Tensor | None,
) -> Tensor:
    """The :func:`convolution` of what a normalization with scale and shift, and SiLU after it, make
    of images (N, C, H, W), and ``plus``, of the result's shape or (N, C, 1, 1), added to it.

    Of what is between, nothing is kept for the gradient.
    """
    result: Tensor = _Convolution.apply(
        images.contiguous(), weight, bias, connections,
        plus if plus is None else plus.contiguous(),
        norm.weight, norm.bias, norm.num_groups, norm.eps,
    )  # fmt: skip
    return result


def convolved_shape(images: Tensor, connections: Connections) -> tuple[int, ...]:
    """The shape of what a :func:`convolution` makes of images."""
    layer, (n, _, height, width) = connections.index(), images.shape
    rows = (height + 2 * layer.pad_rows - layer.kernel_rows) // layer.stride + 1
    columns = (width + 2 * layer.pad_columns - layer.kernel_columns) // layer.stride + 1
    return n, layer.outputs, rows, columns


def projection(
    tokens: Tensor, weight: Tensor, bias: Tensor | None, connections: Connections
) -> Tensor:
    """What ``torch.nn.functional.linear`` makes of tokens (…, features), from active weights."""
    result: Tensor = _Projection.apply(tokens.contiguous(), weight, bias, connections)
    return result


class _CNorm(ctypes.Structure):
    """``struct Norm`` of source/normalization.h."""

    _fields_ = [
        ("groups", Long),
        ("silu", Long),
        ("epsilon", ctypes.c_double),
        *[(name, ctypes.c_void_p) for name in ("scale", "shift", "statistics")],
        *[(name, ctypes.c_void_p) for name in ("of_scale", "of_shift")],
    ]


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        connections: Connections,
        plus: Tensor | None = None,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
        groups: int = 0,
        epsilon: float = 0,
    ) -> Tensor:
        n, _, height, width = images.shape
        out = images.new_empty(convolved_shape(images, connections))
        statistics = images.new_empty(n, groups, 2) if groups else None
        ctx.norm = groups, epsilon
        threads = threads_for(connections.active, out[:, 0].numel())
        ctx.sizes = threads, Long(n), Long(height), Long(width)
        norm = norm_of(groups, epsilon, scale, shift, statistics, silu=True)
        plus_pixels = plus[0, 0].numel() if plus is not None else 0
        sizes = *ctx.sizes, norm, address(plus), Long(plus_pixels)
        values = _compute(
            connections.library.convolve, sizes, images, weight, bias, connections, out
        )
        ctx.save_for_backward(images, weight, bias, values, scale, shift, statistics)
        ctx.plus = None if plus is None else plus.shape
        ctx.connections, ctx.dense = connections, connections.dense_gradient()
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight, bias, values, scale, shift, statistics = ctx.saved_tensors
        connections, layer = ctx.connections, ctx.connections.index()
        padding = layer.pad_rows, layer.pad_columns

        def normalized(images: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
            groups, epsilon = ctx.norm
            if not groups:
                return images
            return functional.silu(functional.group_norm(images, groups, scale, shift, epsilon))

        def dense(images: Tensor, weight: Tensor, bias: Tensor | None, *of_norm: Any) -> Tensor:
            inputs, all_weights = normalized(images, *of_norm), whole(weight, connections)
            return functional.conv2d(inputs, all_weights, bias, layer.stride, padding)

        of_plus = None if ctx.plus is None else gradient.sum_to_size(ctx.plus)
        if torch.is_grad_enabled():
            given = images, weight, bias, scale, shift
            *of_layer, of_scale, of_shift = differentiable(dense, given, gradient)
            return *of_layer, None, of_plus, of_scale, of_shift, None, None
        of_images = torch.empty_like(images) if ctx.needs_input_grad[0] or ctx.norm[0] else None
        of_scale, of_shift = (
            each if each is None else torch.empty_like(each) for each in (scale, shift)
        )
        tensors = scale, shift, statistics, of_scale, of_shift
        sizes = *ctx.sizes, norm_of(*ctx.norm, *tensors, silu=True)
        of_weight, of_bias = _gradients(
            ctx, connections.library.convolve_backward, sizes, images, values, gradient, of_images
        )
        if ctx.dense and ctx.needs_input_grad[1]:
            inputs = normalized(images, scale, shift)
            of_whole = conv2d_weight(  # type: ignore[no-untyped-call]
                inputs, connections.mask.shape, gradient, layer.stride, padding
            )
            of_weight = of_parameter(of_whole, connections)
        return of_images, of_weight, of_bias, None, of_plus, of_scale, of_shift, None, None


class _Projection(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, weight: Tensor, bias: Tensor | None, connections: Connections
    ) -> Tensor:
        layer, library = connections.index(), connections.library
        n = tokens.numel() // layer.inputs
        out = tokens.new_empty(*tokens.shape[:-1], layer.outputs)
        ctx.sizes = threads_for(connections.active, n), Long(n), Long(_columns(n, library))
        values = _compute(library.project, ctx.sizes, tokens, weight, bias, connections, out)
        ctx.save_for_backward(tokens, weight, bias, values)
        ctx.connections, ctx.dense = connections, connections.dense_gradient()
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tokens, weight, bias, values = ctx.saved_tensors
        connections = ctx.connections

        def dense(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return functional.linear(tokens, whole(weight, connections), bias)

        if torch.is_grad_enabled():
            return *differentiable(dense, (tokens, weight, bias), gradient), None
        of_tokens = torch.empty_like(tokens) if ctx.needs_input_grad[0] else None
        of_weight, of_bias = _gradients(
            ctx,
            connections.library.project_backward,
            ctx.sizes,
            tokens,
            values,
            gradient,
            of_tokens,
        )
        if ctx.dense and ctx.needs_input_grad[1]:
            outputs, inputs = connections.mask.shape
            of_whole = gradient.reshape(-1, outputs).mT @ tokens.reshape(-1, inputs)
            of_weight = of_parameter(of_whole, connections)
        return of_tokens, of_weight, of_bias, None


def norm_of(groups: int, epsilon: float, *tensors: Tensor | None, silu: bool) -> Any:
    """What kernels are told of the normalization before a layer, if there is one.

    Args:
        tensors: scale and shift, (channels,); statistics, (N, groups, 2); in a backward pass the
            gradients of scale and shift, too.
    """
    if not groups:
        return None
    return ctypes.byref(_CNorm(groups, silu, epsilon, *map(address, tensors)))


def _compute(
    kernel: Callable[..., object],
    sizes: Sequence[Any],
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    connections: Connections,
    out: Tensor,
) -> Tensor:
    """The values of active weights, after the forward pass of a layer into ``out``."""
    layer = connections.index()
    values = values_for(layer, weight, connections)
    kernel(ctypes.byref(layer), *sizes, *map(address, (inputs, weight, bias, values, out)))
    return values


def values_for(layer: CLayer, weight: Tensor, connections: Connections) -> Tensor:
    """The active values of a weight, (active,); where they are not known, room for them, which a
    forward pass is told to fill."""
    known = known_values(weight, connections)
    layer.packed = known is not None
    return weight.new_empty(connections.active) if known is None else known


def _gradients(
    ctx: Any,
    kernel: Callable[..., object],
    sizes: Sequence[Any],
    inputs: Tensor,
    values: Tensor,
    gradient: Tensor,
    of_inputs: Tensor | None,
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of a layer's weight, unless that of the whole one is wanted, and of its bias,
    after the backward pass into ``of_inputs``."""
    connections, layer = ctx.connections, ctx.connections.index()
    _, needs_weight, needs_bias = ctx.needs_input_grad[:3]
    like = values if connections.packed else connections.mask
    of_weight = inputs.new_empty(like.shape) if needs_weight and not ctx.dense else None
    of_bias = inputs.new_empty(layer.outputs) if needs_bias else None
    found = of_inputs, of_weight, of_bias
    gradient = gradient.contiguous()
    kernel(ctypes.byref(layer), *sizes, *map(address, (inputs, values, gradient, *found)))
    if of_weight is not None:
        connections.note_gradient(of_weight)
    return of_weight, of_bias


def differentiable(
    compute: Callable[..., Tensor], given: Sequence[Tensor | None], gradient: Tensor
) -> list[Tensor | None]:
    """Gradients of what is given to a computation, which can be differentiated themselves."""
    wanted = [each for each in given if each is not None and each.requires_grad]
    found = torch.autograd.grad(compute(*given), wanted, gradient, create_graph=True)
    by_tensor = {id(each): of_each for each, of_each in zip(wanted, found, strict=True)}
    return [by_tensor.get(id(each)) for each in given]


def whole(weight: Tensor, connections: Connections) -> Tensor:
    """The whole of a weight of which the active values may be all that is held."""
    return unpacked(weight, connections) if connections.packed else weight


def of_parameter(of_weight: Tensor, connections: Connections) -> Tensor:
    """The gradient of what is held of a weight, of that of the whole one."""
    return packed_gradient(of_weight, connections) if connections.packed else of_weight


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


def threads_for(active: int, positions: int) -> ctypes.c_int64:
    """Threads for the products of so many active weights at so many positions: all, or one."""
    products = active * positions
    return Long(torch.get_num_threads() if products > _OF_ONE_THREAD else 1)
