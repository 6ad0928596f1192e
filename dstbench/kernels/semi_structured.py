"""Linear layers that a GPU's sparse tensor cores compute: two of four weights are zero (2:4).

The product with the weight runs on them, in half precision; both gradients are dense products, as
neither the transposed weight nor the activations have zeros in such an order.
"""

from __future__ import annotations

import warnings
from collections.abc import MutableMapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.sparse import to_sparse_semi_structured
from torch.utils.weak import WeakTensorKeyDictionary

from dstbench.kernels.modules import known

_ROWS, _COLUMNS = 32, 64
"""What the sizes of a weight are multiples of, in half precision."""


_kept: MutableMapping[Tensor, tuple[int, Tensor]] = WeakTensorKeyDictionary()
"""Compressed weights that sampling goes on with, and the versions of the weights they are of."""


class SemiStructuredLinear(nn.Linear):
    """A linear layer of a 2:4 weight on a GPU, in float16 or bfloat16, by itself or by autocast."""

    def forward(self, input: Tensor) -> Tensor:
        connections = known.get(self.weight)
        dtype = input.dtype
        if torch.is_autocast_enabled("cuda"):
            dtype = torch.get_autocast_dtype("cuda")
        half = dtype in (torch.float16, torch.bfloat16)
        if connections is None or not (input.is_cuda and half and input.numel()):
            return super().forward(input)
        connections.in_use = connections.is_two_of_four
        if not connections.in_use:
            return super().forward(input)
        tokens = input.to(dtype).reshape(-1, self.in_features)
        projected: Tensor
        if torch.is_grad_enabled():
            projected = _Projection.apply(tokens, self.weight.to(dtype))
        else:
            projected = nn.functional.linear(tokens, _kept_compressed(self.weight, dtype))
        if self.bias is not None:
            projected = projected + self.bias.to(dtype)
        return projected.view(*input.shape[:-1], self.out_features)


class _Projection(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(tokens, weight)
        return nn.functional.linear(tokens, _compressed(weight.detach()))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        tokens, weight = ctx.saved_tensors
        of_tokens, of_weight = ctx.needs_input_grad
        return (
            gradient @ weight if of_tokens else None,
            gradient.mT @ tokens if of_weight else None,
        )


def _kept_compressed(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The compressed weight, which is made anew when the weight has changed."""
    version, compressed = _kept.get(weight, (-1, weight))
    if version != weight._version or compressed.dtype != dtype:
        compressed = _compressed(weight.detach().to(dtype))
        _kept[weight] = weight._version, compressed
    return compressed


def _compressed(weight: Tensor) -> Tensor:
    _hear_of_prototypes(weight.device)
    return to_sparse_semi_structured(weight)


@cache
def _hear_of_prototypes(device: torch.device) -> None:
    """Torch's warning, once a process, that this part of it may change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        to_sparse_semi_structured(torch.zeros(_ROWS, _COLUMNS, dtype=torch.half, device=device))


def takes_layer(module: nn.Module) -> bool:
    """Whether sparse tensor cores compute layers like this one: its kind, its sizes, its device."""
    return (
        type(module) is nn.Linear
        and module.weight.is_cuda
        and module.out_features % _ROWS == 0
        and module.in_features % _COLUMNS == 0
        and torch.cuda.get_device_capability(module.weight.device) >= (8, 0)
    )
