"""The settings of latent diffusion; the defaults are those of the paper's CelebA-HQ model.

What other models of images take too stands apart: the settings of the first stage and of labels,
and the checks of noise and sampler.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from dstbench.contracts import PluginSettings, unless

Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]

Variance = Annotated[float, Field(gt=0, lt=1)]
"""The variance of a noise step."""

TRIAL_AUTOENCODER: Mapping[str, Any] = {
    "codes": 16,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "steps": 10,
}
"""Settings of the autoencoder with which a trial takes seconds."""


def check_variances(beta_start: float, beta_end: float) -> None:
    """Raise ``ValueError`` for variances of the noise that do not grow from the first step to the
    last."""
    if beta_start >= beta_end:
        raise ValueError(f"beta_start is {beta_start}: it must be less than beta_end, {beta_end}")


def check_steps(sampling_steps: int, diffusion_steps: int) -> None:
    """Raise ``ValueError`` where DDIM's steps are not equally many noise levels apart."""
    if diffusion_steps % sampling_steps:
        raise ValueError(
            f"sampling_steps is {sampling_steps}: it must divide diffusion_steps, {diffusion_steps}"
        )


def _check_divisible(widths: Sequence[int], divisor: int, setting: str) -> None:
    for width in widths:
        if width % divisor:
            raise ValueError(
                f"{setting} is {divisor}: it must divide block_out_channels, which has {width}"
            )


def _nearest_divisor(number: int, wanted: float) -> int:
    """The divisor that is the nearest by ratio."""
    small = [each for each in range(1, math.isqrt(number) + 1) if number % each == 0]
    divisors = [*small, *(number // each for each in small)]
    return min(divisors, key=lambda each: abs(math.log(each / wanted)))


class AutoencoderSettings(PluginSettings):
    """The autoencoder's sizes (VQ-f4's by default), and how it is trained on the dataset."""

    latent_channels: int = Field(3, ge=1, description="channels of a latent")
    codes: int = Field(8192, ge=2, description="vectors in the codebook")
    block_out_channels: Widths = Field(
        (128, 256, 512),
        description="channels per resolution; every one after the first halves height and width",
    )
    layers_per_block: int = Field(2, ge=1, description="residual blocks per resolution")
    norm_num_groups: int = Field(32, ge=1, description="groups of each group norm")
    steps: int = Field(100_000, ge=2, description="optimizer steps of its training")
    batch_size: int = Field(8, ge=1, description="images per optimizer step")
    learning_rate: float = Field(1e-4, gt=0, description="rate of Adam at the start; falls to 0")
    seed: int = Field(0, ge=0, description="seed of its initial weights and data order")

    @property
    def downsampling(self) -> int:
        """Pixels of the image per side of a latent's pixel."""
        return 1 << (len(self.block_out_channels) - 1)

    @model_validator(mode="after")
    def _groups_fit(self) -> Self:
        _check_divisible(self.block_out_channels, self.norm_num_groups, "norm_num_groups")
        return self


class FirstStageSettings(PluginSettings):
    """The first stage, and what the denoiser sees of it."""

    first_stage: str = Field(
        "train",
        description="the autoencoder that all cells share: train it on the dataset, or the name of "
        "a published one on the Hugging Face hub, or a folder; it must have the sizes that "
        "autoencoder says",
    )
    autoencoder: AutoencoderSettings = Field(
        AutoencoderSettings(), description="its sizes and training"
    )
    latent_scale: Literal["std"] | PositiveFloat = Field(
        "std",
        exclude_if=unless("std"),
        description="what latents are multiplied by before noise is added: 1 / their standard "
        "deviation over the training split (std), or a number, such as the published VQ-f4's 1",
    )
    horizontal_flip: bool = Field(
        False,
        exclude_if=unless(False),
        description="train on each image or its mirror image, drawn anew every step; latents of "
        "both are cached",
    )

    def latent_shape(self, image_shape: Sequence[int]) -> tuple[int, int, int]:
        """(C, h, w) of the latents of images (C, H, W)."""
        height, width = (side // self.autoencoder.downsampling for side in image_shape[-2:])
        return self.autoencoder.latent_channels, height, width


class LabelSettings(PluginSettings):
    """What a model knows of the images' labels, in training and in sampling."""

    class_conditional: bool = Field(
        False,
        exclude_if=unless(False),
        description="whether the denoiser is told the images' labels, which the dataset has to "
        "have; samples are of labels drawn as often as each occurs in the training set",
    )
    label_dropout: float = Field(
        0.1,
        ge=0,
        lt=1,
        exclude_if=unless(0.1),
        description="probability of hiding the label of a training example, drawn anew every step",
    )
    guidance_scale: float = Field(
        1.0,
        ge=1,
        exclude_if=unless(1.0),
        description="classifier-free guidance in sampling: how far to go from what the denoiser "
        "predicts without the label to what it predicts with it (1), and beyond; above 1 the "
        "denoiser is called twice per step",
    )

    @property
    def calls_per_step(self) -> int:
        """Denoiser calls of a sample's step: with and without its label, where it is guided."""
        return 1 if self.guidance_scale == 1 else 2

    @model_validator(mode="after")
    def _labels_are_used(self) -> Self:
        if not self.class_conditional:
            for name, default in (("label_dropout", 0.1), ("guidance_scale", 1.0)):
                if (given := getattr(self, name)) != default:
                    raise ValueError(f"{name} is {given}: it needs class_conditional = true")
        if self.guidance_scale > 1 and not self.label_dropout:
            raise ValueError(
                f"guidance_scale is {self.guidance_scale}: the denoiser has to learn to predict "
                "without a label, so that label_dropout must be more than 0"
            )
        return self


class LatentDiffusionSettings(LabelSettings, FirstStageSettings):
    """The denoiser, the noise and the sampler."""

    block_out_channels: Widths = Field(
        (224, 448, 672, 896),
        description="channels per resolution; every one after the first halves height and width",
    )
    attention: tuple[bool, ...] = Field(
        (False, True, True, True),
        description="per resolution: self-attention after each residual block?",
    )
    layers_per_block: int = Field(2, ge=1, description="residual blocks per resolution")
    attention_head_dim: int = Field(32, ge=1, description="channels per attention head")
    norm_num_groups: int = Field(32, ge=1, description="groups of each group norm")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout rate in each residual block")
    zero_init: bool = Field(
        False,
        exclude_if=unless(False),
        description="whether the last convolution of each residual block, the last layer of each "
        "attention and the network's last convolution start at zero, as published",
    )
    activation_checkpointing: bool = Field(
        False, description="save memory in training by computing activations twice"
    )
    diffusion_steps: int = Field(1000, ge=2, description="noise levels that training draws from")
    beta_start: Variance = Field(0.0015, description="variance of the first noise step")
    beta_end: Variance = Field(
        0.0195, description="variance of the last noise step; square roots are linear in between"
    )
    sampling_steps: int = Field(200, ge=1, description="DDIM steps per sample")
    timestep_spacing: Literal["trailing", "leading"] = Field(
        "trailing",
        exclude_if=unless("trailing"),
        description="noise levels that DDIM visits: from the last, which training saw too, down to "
        "none (trailing), or from short of the last down to the first, as published (leading)",
    )
    eta: float = Field(
        0.0,
        ge=0,
        le=1,
        exclude_if=unless(0.0),
        description="share of fresh noise in each DDIM step: none (0) to that of DDPM (1)",
    )

    def narrower(self) -> list[Self]:
        """The same U-Net in narrower widths, which stay in proportion.

        Groups of norms keep about as many channels, and so do attention's heads; widths where a
        group would have less than half or more than twice as many are left out.
        """
        unit = math.gcd(*self.block_out_channels)
        wanted = unit / self.norm_num_groups
        attends = [*self.attention[:-1], True]  # the middle block, as wide as the last, does
        found = []
        for narrow in range(unit, 0, -max(1, unit // 1000)):
            widths = [width // unit * narrow for width in self.block_out_channels]
            size = _nearest_divisor(narrow, wanted)
            if not 1 / 2 <= size / wanted <= 2:
                continue
            heads = math.gcd(*(w for w, attend in zip(widths, attends, strict=True) if attend))
            update = {
                "block_out_channels": tuple(widths),
                "norm_num_groups": narrow // size,
                "attention_head_dim": _nearest_divisor(heads, self.attention_head_dim),
            }
            found.append(self.model_copy(update=update))
        return found[::-1]

    @property
    def downsampling(self) -> int:
        """Pixels of a latent per side of the U-Net's smallest feature map's pixel."""
        return 1 << (len(self.block_out_channels) - 1)

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if len(self.attention) != len(self.block_out_channels):
            raise ValueError(
                f"attention has {len(self.attention)} values, but block_out_channels has "
                f"{len(self.block_out_channels)} resolutions: give one value for each"
            )
        _check_divisible(self.block_out_channels, self.norm_num_groups, "norm_num_groups")
        with_attention = [
            width
            for width, attends in zip(self.block_out_channels, self.attention, strict=True)
            if attends
        ]
        # The middle block, as wide as the last resolution, always attends.
        _check_divisible(
            [*with_attention, self.block_out_channels[-1]],
            self.attention_head_dim,
            "attention_head_dim",
        )
        return self

    @model_validator(mode="after")
    def _noise_fits(self) -> Self:
        check_variances(self.beta_start, self.beta_end)
        check_steps(self.sampling_steps, self.diffusion_steps)
        return self
