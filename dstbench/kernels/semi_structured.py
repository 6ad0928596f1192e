"""Linear layers that a GPU's sparse tensor cores compute: two of four weights are zero (2:4).

The product with the weight runs on them, in half precision; both gradients are dense products, as
neither the transposed weight nor the activations have zeros in such an order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.sparse import to_sparse_semi_structured

from dstbench.kernels.modules import known

_ROWS, _COLUMNS = 32, 64
"""What the sizes of a weight are multiples of, in half precision."""


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
        projected: Tensor = _Projection.apply(tokens, self.weight.to(dtype))
        if self.bias is not None:
            projected = projected + self.bias.to(dtype)
        return projected.view(*input.shape[:-1], self.out_features)


class _Projection(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(tokens, weight)
        return nn.functional.linear(tokens, to_sparse_semi_structured(weight.detach()))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        tokens, weight = ctx.saved_tensors
        of_tokens, of_weight = ctx.needs_input_grad
        return (
            gradient @ weight if of_tokens else None,
            gradient.mT @ tokens if of_weight else None,
        )


def takes_layer(module: nn.Module) -> bool:
    """Whether sparse tensor cores compute layers like this one: its kind, its sizes, its device."""
    return (
        type(module) is nn.Linear
        and module.weight.is_cuda
        and module.out_features % _ROWS == 0
        and module.in_features % _COLUMNS == 0
        and torch.cuda.get_device_capability(module.weight.device) >= (8, 0)
    )
