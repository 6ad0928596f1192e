"""The settings of the diffusion transformer; the default sizes are those of DiT-S/2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from dstbench_ldm.settings import (
    FirstStageSettings,
    LabelSettings,
    Variance,
    check_steps,
    check_variances,
)
from pydantic import Field, model_validator


class DiffusionTransformerSettings(LabelSettings, FirstStageSettings):
    """What is diffused, the denoiser, the noise and the sampler."""

    space: Literal["latent", "pixel"] = Field(
        "latent",
        description="what is diffused: latents of the first stage, or the images themselves, for "
        "which first_stage, autoencoder and latent_scale mean nothing",
    )
    objective: Literal["ddpm", "flow-matching"] = Field(
        "ddpm",
        description="ddpm: the denoiser predicts the noise, and DDIM samples; flow-matching: it "
        "predicts the way from the example to the noise, and Euler's method samples",
    )
    patch_size: int = Field(2, ge=1, description="height and width of the patch that is a token")
    layers: int = Field(12, ge=1, description="transformer blocks")
    width: int = Field(384, ge=4, description="channels of a token")
    heads: int = Field(6, ge=1, description="attention heads of each block")
    mlp_ratio: int = Field(4, ge=1, description="hidden channels of each block's MLP / width")
    zero_init: bool = Field(
        True,
        description="whether what modulates and gates each block, and the last layer, start at "
        "zero, as published; methods that choose a mask by the first gradients need false",
    )
    diffusion_steps: int = Field(
        1000, ge=2, description="noise levels that training draws from, with ddpm"
    )
    beta_start: Variance = Field(0.0001, description="variance of the first noise step, with ddpm")
    beta_end: Variance = Field(
        0.02, description="variance of the last noise step, with ddpm; linear between"
    )
    sampling_steps: int = Field(250, ge=1, description="steps of DDIM or Euler's method per sample")

    def example_shape(self, image_shape: Sequence[int]) -> tuple[int, int, int]:
        """(C, h, w) of what is diffused of images (C, H, W)."""
        if self.space == "latent":
            return self.latent_shape(image_shape)
        channels, height, width = image_shape
        return channels, height, width

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads is {self.heads}: it must divide width, which is {self.width}")
        if self.width % 4:
            raise ValueError(f"width is {self.width}: it must be a multiple of 4")
        return self

    @model_validator(mode="after")
    def _noise_fits(self) -> Self:
        check_variances(self.beta_start, self.beta_end)
        if self.objective == "ddpm":
            check_steps(self.sampling_steps, self.diffusion_steps)
        return self
