"""Attention blocks whose normalization, projections and attention are computed in one pass."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn
from torch.nn import functional

from dstbench.kernels.connections import CLayer, Connections, pay_together
from dstbench.kernels.functions import (
    differentiable,
    image_places,
    norm_of,
    of_parameter,
    threads_for,
    values_for,
    whole,
)
from dstbench.kernels.library import Long, address
from dstbench.kernels.modules import SparseLinear, held, known_among, takes
from dstbench.kernels.parts import are_watched, is_group_norm

_LARGEST = 2**14
"""Values of a head's keys, and of products of a few queries with them, for one image, beyond which
those of a vector of images do not stay in the second-level cache."""

_QUERIES = 8
"""Queries whose products with keys are held at a time, as in source/attention.h."""


class SparseAttention(Attention):  # type: ignore[misc]
    """diffusers' attention of the pixels of images to each other, with four projections that
    kernels for active connections compute together with all that is between them."""

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **others: Any,
    ) -> Tensor:
        alone = encoder_hidden_states is None and attention_mask is None
        if alone and others.keys() <= {"temb"} and self._is_common():
            connections = self._connections(hidden_states)
            if connections is not None:
                return self._attended(hidden_states, connections)
        return super().forward(  # type: ignore[no-any-return]
            hidden_states, encoder_hidden_states, attention_mask, **others
        )

    def _is_common(self) -> bool:
        """Whether there is nothing but a group normalization and four projections, and nobody
        watches them."""
        if self.pre_only:
            return False
        dropout = self.to_out[1]
        parts = self.group_norm, *self._projections(), dropout
        others = self.spatial_norm, self.norm_q, self.norm_k, self.added_kv_proj_dim
        return (
            type(self.processor) is AttnProcessor2_0
            and not self.fused_projections
            and all(each is None for each in others)
            and (self.group_norm is None or is_group_norm(self.group_norm))
            and not (self.training and dropout.p)
            and not are_watched(parts)
        )

    def _projections(self) -> list[nn.Linear]:
        """Those to queries, keys, values, and the result."""
        return [self.to_q, self.to_k, self.to_v, self.to_out[0]]

    def _connections(self, images: Tensor) -> list[Connections] | None:
        """Those of the projections; ``None`` where kernels are not to compute them together."""
        if images.ndim != 4 or not images.numel() or not takes(images):
            return None
        sparse = [each for each in self._projections() if isinstance(each, SparseLinear)]
        found = known_among(map(held, sparse))
        n, channels, rows, columns = images.shape
        inner, pixels = self.to_q.out_features, rows * columns
        shapes = [(each.in_features, each.out_features) for each in sparse]
        if (
            len(found) < 4
            or shapes != [(channels, inner)] * 3 + [(inner, channels)]
            or (self.group_norm is not None and self.group_norm.num_channels != channels)
            or inner % self.heads
            or pixels * (inner // self.heads + _QUERIES) >= _LARGEST
        ):
            return None
        pay = pay_together(
            found, n * pixels, lambda library: n / image_places(n, library), fused=True
        )
        return found if pay else None

    def _attended(self, images: Tensor, connections: list[Connections]) -> Tensor:
        norm, projections = self.group_norm, self._projections()
        scale, shift, groups, epsilon = None, None, 0, 0.0
        if norm is not None:
            scale, shift, groups, epsilon = norm.weight, norm.bias, norm.num_groups, norm.eps
        adds, is_kept = self.residual_connection, torch.is_grad_enabled()
        block = _Block(connections, self.heads, adds, groups, epsilon, is_kept)
        weights, biases = map(held, projections), (each.bias for each in projections)
        found: Tensor = _Attention.apply(
            images.contiguous(), scale, shift, *weights, *biases, block
        )
        return found if self.rescale_output_factor == 1 else found / self.rescale_output_factor


class _Block(NamedTuple):
    """What an attention block is, beside its parameters."""

    connections: list[Connections]
    heads: int
    adds_images: bool
    groups: int
    """Of the normalization; 0 without one."""
    epsilon: float
    is_kept: bool
    """Whether there will be a backward pass."""


class _CAttention(ctypes.Structure):
    """``struct Attention`` of source/attention.h."""

    _fields_ = [
        ("heads", Long),
        ("adds_images", Long),
        ("scale", ctypes.c_double),
        ("layers", ctypes.POINTER(CLayer) * 4),
        *[(name, ctypes.c_void_p * 4) for name in ("weights", "biases", "values")],
        *[(name, ctypes.c_void_p * 4) for name in ("of_weights", "of_biases", "of_wholes")],
        ("kept", ctypes.c_void_p),
    ]


class _Attention(torch.autograd.Function):
    """Of images (N, C, H, W), scale and shift of a normalization, weights and biases of the four
    projections, and a :class:`_Block`."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, scale: Tensor | None, shift: Tensor | None, *others: Any
    ) -> Tensor:
        weights, biases, block = others[:4], others[4:8], others[8]
        connections: list[Connections] = block.connections
        layers, library = [each.index() for each in connections], connections[0].library
        values = list(map(values_for, layers, weights, connections))
        n, _, rows, columns = images.shape
        active = sum(each.active for each in connections)
        ctx.sizes = Long(n), Long(rows), Long(columns)
        ctx.threads = threads_for(active, n * rows * columns)
        given = _told(block, layers, values, weights=weights, biases=biases)
        kept = None
        if block.is_kept:
            kept = images.new_empty(library.attention_floats(ctypes.byref(given), *ctx.sizes))
            given.kept = kept.data_ptr()
        statistics = images.new_empty(n, block.groups, 2)
        norm = norm_of(block.groups, block.epsilon, scale, shift, statistics, silu=False)
        out = torch.empty_like(images)
        library.attention(
            ctypes.byref(given), ctx.threads, *ctx.sizes, norm, address(images), address(out)
        )
        ctx.save_for_backward(images, scale, shift, statistics, kept, *weights, *biases, *values)
        ctx.block, ctx.dense = block, [each.dense_gradient() for each in connections]
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, scale, shift, statistics, kept, *others = ctx.saved_tensors
        weights, biases, values = others[:4], others[4:8], others[8:]
        block: _Block = ctx.block
        if torch.is_grad_enabled():
            tensors = images, scale, shift, *weights, *biases
            return *differentiable(lambda *given: _dense(block, *given), tensors, gradient), None
        layers = [each.index() for each in block.connections]
        gradient = gradient.contiguous()
        of_images = torch.empty_like(images)
        of_scale, of_shift = (
            each if each is None else torch.empty_like(each) for each in (scale, shift)
        )
        connections, needed = block.connections, ctx.needs_input_grad[3:11]
        of_weights, of_wholes, of_biases = [], [], []
        for i, each in enumerate(connections):
            wanted, like = needed[i], values[i] if each.packed else each.mask
            of_weights.append(images.new_empty(like.shape) if wanted and not ctx.dense[i] else None)
            of_wholes.append(images.new_empty(each.mask.shape) if wanted and ctx.dense[i] else None)
            of_biases.append(torch.empty_like(biases[i]) if needed[4 + i] else None)
        gradients = {"of_weights": of_weights, "of_wholes": of_wholes, "of_biases": of_biases}
        given = _told(block, layers, values, **gradients)
        given.kept = kept.data_ptr()
        tensors = scale, shift, statistics, of_scale, of_shift
        norm = norm_of(block.groups, block.epsilon, *tensors, silu=False)
        connections[0].library.attention_backward(
            ctypes.byref(given), ctx.threads, *ctx.sizes, norm,
            *map(address, (images, gradient, of_images)),
        )  # fmt: skip
        for i, each in enumerate(connections):
            if (of_weight := of_weights[i]) is not None:
                each.note_gradient(of_weight)
            elif (of_whole := of_wholes[i]) is not None:
                of_weights[i] = of_parameter(of_whole, each)
        return of_images, of_scale, of_shift, *of_weights, *of_biases, None


def _told(block: _Block, layers: list[CLayer], values: list[Tensor], **tensors: Any) -> _CAttention:
    """What kernels are told of a block, and of tensors of its four projections by name."""
    channels = layers[0].outputs // block.heads
    told = _CAttention(block.heads, block.adds_images, channels**-0.5)
    told.layers = (ctypes.POINTER(CLayer) * 4)(*map(ctypes.pointer, layers))
    for name, four in {"values": values, **tensors}.items():
        setattr(told, name, (ctypes.c_void_p * 4)(*(address(each).value for each in four)))
    return told


def _dense(
    block: _Block, images: Tensor, scale: Tensor | None, shift: Tensor | None, *others: Tensor
) -> Tensor:
    """The same by torch's dense functions."""
    weights, biases = others[:4], others[4:]
    inputs = images
    if block.groups:
        inputs = functional.group_norm(images, block.groups, scale, shift, block.epsilon)

    def projected(tokens: Tensor, i: int) -> Tensor:
        return functional.linear(tokens, whole(weights[i], block.connections[i]), biases[i])

    def of_heads(tokens: Tensor) -> Tensor:
        return tokens.view(*tokens.shape[:2], block.heads, -1).transpose(1, 2)

    query, key, value = (of_heads(projected(inputs.flatten(2).mT, i)) for i in range(3))
    attention = (query @ key.mT * query.shape[-1] ** -0.5).softmax(-1)
    result = projected((attention @ value).transpose(1, 2).flatten(2), 3).mT.view(images.shape)
    return result + images if block.adds_images else result
