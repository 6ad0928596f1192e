"""Residual blocks whose normalization and SiLU are computed with the convolution after them."""

from __future__ import annotations

from typing import Any

from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from dstbench.kernels.modules import SparseConv2d, takes
from dstbench.kernels.parts import are_watched, is_group_norm


class SparseResnetBlock2D(ResnetBlock2D):  # type: ignore[misc]
    """diffusers' block of two convolutions, each after a normalization and SiLU, which kernels for
    active connections compute in one pass."""

    def forward(
        self, input_tensor: Tensor, temb: Tensor | None, *args: Any, **kwargs: Any
    ) -> Tensor:
        if args or kwargs or not (self._is_common() and takes(input_tensor)):
            return super().forward(input_tensor, temb, *args, **kwargs)  # type: ignore[no-any-return]
        if self.time_emb_proj is not None:
            temb = temb if self.skip_time_act else self.nonlinearity(temb)
            temb = self.time_emb_proj(temb)[:, :, None, None]
        hidden = self._convolved(self.norm1, self.conv1, input_tensor, temb)
        shortcut = input_tensor if self.conv_shortcut is None else self.conv_shortcut(input_tensor)
        hidden = self._convolved(self.norm2, self.conv2, hidden, shortcut)
        return hidden if self.output_scale_factor == 1 else hidden / self.output_scale_factor

    def _is_common(self) -> bool:
        """Whether the block neither changes the size of images nor drops, nor scales by time, and
        nobody watches its parts."""
        parts = self.norm1, self.norm2, self.nonlinearity, self.dropout, self.conv1, self.conv2
        return (
            self.upsample is None
            and self.downsample is None
            and self.time_embedding_norm == "default"
            and type(self.nonlinearity) is nn.SiLU
            and not (self.training and self.dropout.p)
            and not are_watched(parts)
        )

    def _convolved(
        self, norm: nn.Module, convolution: nn.Module, input: Tensor, plus: Tensor | None
    ) -> Tensor:
        """What a convolution makes of a normalized input after SiLU, and ``plus`` added to it."""
        if isinstance(convolution, SparseConv2d) and is_group_norm(norm):
            connections = convolution.connections(input)
            if connections is None:
                return _added(nn.Conv2d.forward(convolution, self.nonlinearity(norm(input))), plus)
            result = convolution.normalized_forward(norm, input, plus, connections)
            if result is not None:
                return result
        return _added(convolution(self.nonlinearity(norm(input))), plus)


def _added(hidden: Tensor, plus: Tensor | None) -> Tensor:
    return hidden if plus is None else hidden + plus
