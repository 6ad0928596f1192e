"""The settings of ChiroDiff, after the authors' public code."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from dstbench.contracts import PluginSettings, unless

Representation = Literal["velocity", "absolute"]

Size = Literal["vmnist", "kanjivg", "quickdraw"]

SIZES: dict[Size, dict[str, int]] = {
    "vmnist": {"layers": 2, "units": 48},
    "kanjivg": {"layers": 3, "units": 96},
    "quickdraw": {"layers": 3, "units": 128},
}
"""``kanjivg`` is the one that the authors' configuration file has; the others, for shorter and for
more varied sketches, are not in their code."""


class ChiroDiffSettings(PluginSettings):
    """The denoiser, the noise and the sampler.

    Layers, units and variance strength are by default those of the configuration file in
    https://github.com/dasayan05/chirodiff, representation and noise levels the defaults of that
    code (the file has places, and 35 levels).
    """

    representation: Representation = Field(
        "velocity", description="what is diffused: each point's step from the last, or its place"
    )
    size: Size | None = Field(
        None,
        exclude=True,  # two ways to write the same cell
        description="sets layers and units, unless they are given: vmnist to 2 and 48, kanjivg to "
        "3 and 96, quickdraw to 3 and 128",
    )
    layers: int = Field(3, ge=1, description="layers of the GRU")
    units: int = Field(96, ge=1, description="units per layer and direction")
    diffusion_steps: int = Field(
        1000,
        ge=21,  # the last variance would be 1 or more
        description="noise levels that training draws from; the variances of the noise grow "
        "linearly from 0.1 / diffusion_steps to 20 / diffusion_steps",
    )
    sampling_steps: int = Field(
        1000, ge=1, description="denoiser calls per sample; must divide diffusion_steps"
    )
    timestep_spacing: Literal["trailing", "leading"] = Field(
        "trailing",
        exclude_if=unless("trailing"),
        description="noise levels that sampling visits: from the last down to none (trailing), or "
        "from short of the last down to the first, and then to none (leading)",
    )
    sampler: Literal["ddpm", "ddim"] = Field(
        "ddpm",
        exclude_if=unless("ddpm"),
        description="ddim: the noise that is not added is not taken away either",
    )
    variance_strength: float = Field(
        0.75,
        ge=0,
        le=1,
        description="factor of the noise added in sampling, DDIM's η; 1: as in DDPM",
    )

    @model_validator(mode="before")
    @classmethod
    def _size(cls, given: Any) -> Any:
        named = SIZES.get(given["size"]) if isinstance(given.get("size"), str) else None
        return {**(named or {}), **given}

    @model_validator(mode="after")
    def _steps_fit(self) -> Self:
        if self.diffusion_steps % self.sampling_steps:
            raise ValueError(
                f"sampling_steps is {self.sampling_steps}: it must divide diffusion_steps, "
                f"{self.diffusion_steps}"
            )
        return self
