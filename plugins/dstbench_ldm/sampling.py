"""DDPM's noise, and DDIM: the noise levels that it visits, and the noise that it adds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler, LDMPipeline, UNet2DModel
from torch import Tensor

from dstbench_ldm.decoder import with_scale
from dstbench_ldm.diffusion import Predict
from dstbench_ldm.first_stage import FirstStage
from dstbench_ldm.settings import LatentDiffusionSettings


class NoisePrediction:
    """The denoiser predicts the noise in examples; samples are drawn by DDIM.

    'Denoising Diffusion Probabilistic Models' (Ho et al., 2020), equation 14, and 'Denoising
    Diffusion Implicit Models' (Song et al., ICLR 2021, arXiv 2010.02502), equation 12.
    """

    def __init__(self, scheduler: DDIMScheduler, eta: float = 0.0) -> None:
        self.scheduler = scheduler
        self.eta = eta

    def times(self, count: int, rng: torch.Generator) -> Tensor:
        return torch.randint(self.scheduler.config.num_train_timesteps, (count,), generator=rng)

    def noisy(self, examples: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        noisy: Tensor = self.scheduler.add_noise(examples, noise, times)
        return noisy

    def target(self, examples: Tensor, noise: Tensor) -> Tensor:
        return noise

    def fresh(self, count: int, rng: torch.Generator) -> list[torch.Generator]:
        return fresh_noise(count, rng) if self.eta else []

    def denoised(self, predict: Predict, noise: Tensor, fresh: Sequence[torch.Generator]) -> Tensor:
        examples, shape = noise, noise.shape[1:]
        for step in self.scheduler.timesteps:
            predicted = predict(examples, step.expand(len(examples)).to(examples.device))
            added = [torch.randn(shape, generator=each) for each in fresh]
            examples = self.scheduler.step(
                predicted,
                step,
                examples,
                eta=self.eta,
                variance_noise=torch.stack(added).to(examples.device) if added else None,
            ).prev_sample
        return examples


def build_scheduler(settings: LatentDiffusionSettings) -> DDIMScheduler:
    """DDIM with its sampling steps set, by which noise is added in training too.

    With leading steps the levels are those of the published code: the last one visited is the
    second, and what is left of the noise is that of the first. Where every level is visited,
    leading and trailing are the same.
    """
    leading = (
        settings.timestep_spacing == "leading"
        and settings.sampling_steps < settings.diffusion_steps
    )
    scheduler = DDIMScheduler(
        num_train_timesteps=settings.diffusion_steps,
        beta_schedule="scaled_linear",
        beta_start=settings.beta_start,
        beta_end=settings.beta_end,
        clip_sample=False,
        timestep_spacing="leading" if leading else "trailing",
        steps_offset=int(leading),
        set_alpha_to_one=not leading,
    )
    scheduler.set_timesteps(settings.sampling_steps)
    return scheduler


def build_pipeline(
    denoiser: Any, stage: FirstStage, settings: LatentDiffusionSettings, latent_size: int
) -> LDMPipeline:
    """The pipeline of diffusers' that samples as the model does."""
    config = {name: value for name, value in denoiser.config.items() if name[0] != "_"}
    unet = UNet2DModel(**config | {"sample_size": latent_size})
    unet.load_state_dict(denoiser.state_dict())
    autoencoder = with_scale(stage)
    unet = unet.to(autoencoder.device).eval()
    return LDMPipeline(vqvae=autoencoder, unet=unet, scheduler=build_scheduler(settings))


def fresh_noise(count: int, rng: torch.Generator) -> list[torch.Generator]:
    """A source of noise for each of ``count`` samples, which depends on the state of ``rng`` and
    the sample's position alone; ``rng`` is left as it is."""
    # A copy's numbers: the noise that samples start from is the same without fresh noise.
    seeds = torch.randint(2**62, (count,), generator=rng.clone_state())
    return [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]
