"""The denoiser: diffusers' U-Net, called as ``denoiser(latents, timesteps)``, or with labels."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from dstbench_ldm.settings import LatentDiffusionSettings


class Denoiser(UNet2DModel):  # type: ignore[misc]
    """``UNet2DModel`` that returns a tensor, so that it can be traced."""

    def forward(self, latents: Tensor, timesteps: Tensor, labels: Tensor | None = None) -> Tensor:
        """The noise in ``latents`` (N, C, h, w) at ``timesteps`` (N,), 0 ≤ t < diffusion_steps;
        with the indices of labels (N,), where they are told."""
        noise: Tensor = super().forward(latents, timesteps, labels, return_dict=False)[0]
        return noise


def build_denoiser(settings: LatentDiffusionSettings, classes: int = 0) -> Denoiser:
    """A denoiser of these settings, with fresh weights; it is told labels if there are classes."""
    down = ["AttnDownBlock2D" if attends else "DownBlock2D" for attends in settings.attention]
    up = ["AttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(settings.attention)]
    denoiser = Denoiser(
        in_channels=settings.autoencoder.latent_channels,
        out_channels=settings.autoencoder.latent_channels,
        block_out_channels=settings.block_out_channels,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        layers_per_block=settings.layers_per_block,
        attention_head_dim=settings.attention_head_dim,
        norm_num_groups=settings.norm_num_groups,
        dropout=settings.dropout,
        num_class_embeds=classes + 1 if classes else None,  # one more for labels that are hidden
    )
    if settings.zero_init:
        with torch.no_grad():
            for layer in _last_layers(denoiser):
                for parameter in layer.parameters():
                    parameter.zero_()
    if settings.activation_checkpointing:
        denoiser.enable_gradient_checkpointing()
    return denoiser


def _last_layers(denoiser: Denoiser) -> Iterator[nn.Module]:
    """The layer that each residual branch ends with, and that of the whole network."""
    for module in denoiser.modules():
        if isinstance(module, ResnetBlock2D):
            yield module.conv2
        elif isinstance(module, Attention):
            yield module.to_out[0]
    yield denoiser.conv_out
