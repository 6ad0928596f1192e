"""The denoiser: diffusers' U-Net, called as ``denoiser(latents, timesteps)``."""

from __future__ import annotations

from diffusers import UNet2DModel
from torch import Tensor

from dstbench_ldm.settings import LatentDiffusionSettings


class Denoiser(UNet2DModel):  # type: ignore[misc]
    """``UNet2DModel`` that returns a tensor, so that it can be traced."""

    def forward(self, latents: Tensor, timesteps: Tensor) -> Tensor:
        """The noise in ``latents`` (N, C, h, w) at ``timesteps`` (N,), 0 ≤ t < diffusion_steps."""
        noise: Tensor = super().forward(latents, timesteps, return_dict=False)[0]
        return noise


def build_denoiser(settings: LatentDiffusionSettings) -> Denoiser:
    """A denoiser of these settings, with fresh weights."""
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
    )
    if settings.activation_checkpointing:
        denoiser.enable_gradient_checkpointing()
    return denoiser
