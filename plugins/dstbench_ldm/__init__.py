"""Latent diffusion: a U-Net that denoises the latents of an autoencoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dstbench import hookimpl

if TYPE_CHECKING:
    from dstbench.contracts import Model


@hookimpl
def dstbench_models() -> list[type[Model]]:
    from dstbench_ldm.model import LatentDiffusion

    return [LatentDiffusion]
