"""Layers as differentiable functions that go over the active connections alone."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dstbench.kernels.connections import Connections
from dstbench.kernels.library import Long, address


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
        library, layer = connections.library, connections.index()
        n, _, height, width = images.shape
        rows = (height + 2 * layer.pad_rows - layer.kernel_rows) // layer.stride + 1
        columns = (width + 2 * layer.pad_columns - layer.kernel_columns) // layer.stride + 1
        sizes = Long(n), Long(height), Long(width)
        packed = images.new_empty(library.packed_images(ctypes.byref(layer), *sizes))
        out = images.new_empty(n, layer.outputs, rows, columns)
        library.convolve(
            ctypes.byref(layer), _threads(), *sizes, address(images), address(weight),
            address(bias), address(packed), address(out),
        )  # fmt: skip
        dense = connections.dense_gradient()
        ctx.save_for_backward(packed, weight, images if dense else None)
        ctx.connections, ctx.shape = connections, images.shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        packed, weight, images = ctx.saved_tensors
        connections, shape = ctx.connections, ctx.shape
        gradient = gradient.contiguous()
        layer = connections.index()
        of_images, of_weight, of_bias = _results(ctx, shape, weight, layer.outputs)
        dense = None
        if of_weight is not None and images is not None:
            of_weight, dense = None, torch.ops.aten.convolution_backward(
                gradient, images, weight, None, [layer.stride] * 2,
                [layer.pad_rows, layer.pad_columns], [1, 1], False, [0, 0], 1, [False, True, False],
            )[1]  # fmt: skip
        n, _, height, width = shape
        connections.library.convolve_backward(
            ctypes.byref(layer), _threads(), Long(n), Long(height), Long(width), address(packed),
            address(weight), address(gradient), address(of_images), address(of_weight),
            address(of_bias),
        )  # fmt: skip
        if of_weight is not None:
            connections.note_gradient(of_weight)
        return of_images, of_weight if dense is None else dense, of_bias, None


class _Projection(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, weight: Tensor, bias: Tensor | None, connections: Connections
    ) -> Tensor:
        library, layer = connections.library, connections.index()
        n = tokens.numel() // layer.inputs
        vectors = -(-n // library.lanes())
        ctx.sizes = sizes = Long(n), Long(min(vectors, 16))
        packed = tokens.new_empty(library.packed_tokens(ctypes.byref(layer), *sizes))
        out = tokens.new_empty(*tokens.shape[:-1], layer.outputs)
        library.project(
            ctypes.byref(layer), _threads(), *sizes, address(tokens), address(weight),
            address(bias), address(packed), address(out),
        )  # fmt: skip
        dense = connections.dense_gradient()
        ctx.save_for_backward(packed, weight, tokens if dense else None)
        ctx.connections, ctx.shape = connections, tokens.shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        packed, weight, tokens = ctx.saved_tensors
        connections = ctx.connections
        gradient = gradient.contiguous()
        layer = connections.index()
        of_tokens, of_weight, of_bias = _results(ctx, ctx.shape, weight, layer.outputs)
        dense = None
        if of_weight is not None and tokens is not None:
            of_weight = None
            dense = gradient.view(-1, layer.outputs).mT @ tokens.view(-1, layer.inputs)
        connections.library.project_backward(
            ctypes.byref(layer), _threads(), *ctx.sizes, address(packed), address(weight),
            address(gradient), address(of_tokens), address(of_weight), address(of_bias),
        )  # fmt: skip
        if of_weight is not None:
            connections.note_gradient(of_weight)
        return of_tokens, of_weight if dense is None else dense, of_bias, None


def _results(
    ctx: Any, shape: torch.Size, weight: Tensor, outputs: int
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Tensors for the gradients that are wanted, of input, weight and bias."""
    of_input, of_weight, of_bias, _ = ctx.needs_input_grad
    return (
        weight.new_empty(shape) if of_input else None,
        torch.zeros_like(weight) if of_weight else None,
        weight.new_empty(outputs) if of_bias else None,
    )


def group_norm(
    images: Tensor, groups: int, weight: Tensor, bias: Tensor, epsilon: float, library: ctypes.CDLL
) -> Tensor:
    """What ``torch.nn.functional.group_norm`` makes of images (N, C, …)."""
    result: Tensor = _GroupNorm.apply(images.contiguous(), groups, weight, bias, epsilon, library)
    return result


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        groups: int,
        weight: Tensor,
        bias: Tensor,
        epsilon: float,
        library: ctypes.CDLL,
    ) -> Tensor:
        n, channels = images.shape[:2]
        pixels = images[0, 0].numel()
        ctx.sizes = [Long(value) for value in (n, groups, channels // groups, pixels)]
        ctx.library = library
        statistics = images.new_empty(n, groups, 2)
        out = torch.empty_like(images)
        library.normalise(
            _threads(), *ctx.sizes, ctypes.c_float(epsilon), address(images), address(weight),
            address(bias), address(statistics), address(out),
        )  # fmt: skip
        ctx.save_for_backward(images, weight, statistics)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight, statistics = ctx.saved_tensors
        gradient = gradient.contiguous()
        of_images = torch.empty_like(images)
        of_weight, of_bias = images.new_empty(2, *images.shape[:2])
        ctx.library.normalise_backward(
            _threads(), *ctx.sizes, address(images), address(weight), address(statistics),
            address(gradient), address(of_images), address(of_weight), address(of_bias),
        )  # fmt: skip
        return of_images, None, of_weight.sum(0), of_bias.sum(0), None, None


def _threads() -> ctypes.c_int64:
    return Long(torch.get_num_threads())
