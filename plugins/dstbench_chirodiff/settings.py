"""The settings of ChiroDiff; the defaults follow the authors' public code."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from dstbench.contracts import PluginSettings

Representation = Literal["velocity", "absolute"]


class ChiroDiffSettings(PluginSettings):
    """The denoiser, the noise and the sampler.

    The defaults suit KanjiVG. VMNIST's shorter sketches need less (``layers = 2, units = 48``),
    QuickDraw's more varied ones more (``units = 128``).
    """

    representation: Representation = Field(
        "velocity", description="what is diffused: each point's step from the last, or its place"
    )
    layers: int = Field(3, ge=1, description="layers of the GRU; 2 for VMNIST, else 3")
    units: int = Field(
        96,
        ge=1,
        description="units per layer and direction; 48 for VMNIST, 96 for KanjiVG, 128 for "
        "QuickDraw",
    )
    diffusion_steps: int = Field(
        1000,
        ge=21,  # the last variance would be 1 or more
        description="noise levels that training draws from; the variances of the noise grow "
        "linearly from 0.1 / diffusion_steps to 20 / diffusion_steps",
    )
    sampling_steps: int = Field(
        1000, ge=1, description="denoiser calls per sample; must divide diffusion_steps"
    )
    variance_strength: float = Field(
        0.75, ge=0, le=1, description="factor of the noise added in sampling; 1: as in DDPM"
    )

    @model_validator(mode="after")
    def _steps_fit(self) -> Self:
        if self.diffusion_steps % self.sampling_steps:
            raise ValueError(
                f"sampling_steps is {self.sampling_steps}: it must divide diffusion_steps, "
                f"{self.diffusion_steps}"
            )
        return self
