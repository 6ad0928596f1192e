"""The latent diffusion model, as the harness drives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dstbench.contracts import Data, Items, Model, Outline, Split, Workspace
from dstbench.errors import ConfigError, DivergedError
from dstbench_ldm.settings import LatentDiffusionSettings


class LatentDiffusion(Model[LatentDiffusionSettings]):
    """Latent diffusion: a U-Net predicts the noise in the latents of a VQ autoencoder.

    'High-Resolution Image Synthesis with Latent Diffusion Models' (Rombach et al., CVPR 2022,
    arXiv 2112.10752), unconditional.

    Raises :class:`~dstbench.errors.ConfigError` where the images cannot be halved as often as the
    first stage and the denoiser do.
    """

    name = "ldm"
    accepts = "images"
    Settings = LatentDiffusionSettings
    trial_settings: ClassVar[Mapping[str, Any]] = {
        "autoencoder": {
            "codes": 16,
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "steps": 10,
        },
        "block_out_channels": (8, 16),
        "attention": (False, True),
        "layers_per_block": 1,
        "attention_head_dim": 8,
        "norm_num_groups": 4,
        "sampling_steps": 4,
    }

    def __init__(self, settings: LatentDiffusionSettings, data: Data, workspace: Workspace) -> None:
        super().__init__(settings, data, workspace)
        _check_image_size(settings, data.train[0].shape)

        from diffusers import DDIMScheduler  # slow, and not needed to list the plugins

        from dstbench_ldm.first_stage import prepare_first_stage

        self.first_stage = prepare_first_stage(settings, data, workspace)
        self.scheduler = DDIMScheduler(
            num_train_timesteps=settings.diffusion_steps,
            beta_schedule="scaled_linear",
            beta_start=settings.beta_start,
            beta_end=settings.beta_end,
            clip_sample=False,
            # From the last noise level, which training saw too, down to none.
            timestep_spacing="trailing",
        )
        self.scheduler.set_timesteps(settings.sampling_steps)

    @classmethod
    def outline(cls, settings: LatentDiffusionSettings, items: Items) -> Outline:
        """The U-Net, called on a latent (1, C, h, w) and its timestep (1,)."""
        from dstbench_ldm.denoiser import build_denoiser

        _check_image_size(settings, items.shape)
        latent = torch.zeros(1, *settings.latent_shape(items.shape))
        timestep = torch.zeros(1, dtype=torch.int64)
        return Outline(build_denoiser(settings), (latent, timestep), settings.sampling_steps)

    def batch(self, split: Split, indices: Tensor) -> Tensor:
        """Scaled latents (N, C, h, w)."""
        latents = self.first_stage.latents[split][indices] * self.first_stage.scaling_factor
        if self.workspace.device.type == "cuda":
            latents = latents.pin_memory()  # so that the copy need not be waited for
        return latents.to(self.workspace.device, non_blocking=True)

    def loss(self, denoiser: nn.Module, batch: Tensor, rng: torch.Generator) -> Tensor:
        """Mean squared error of the predicted noise.

        'Denoising Diffusion Probabilistic Models' (Ho et al., 2020), equation 14.
        """
        steps = torch.randint(self.settings.diffusion_steps, (len(batch),), generator=rng)
        noise = torch.randn(batch.shape, generator=rng).to(batch.device)
        steps = steps.to(batch.device)
        noisy = self.scheduler.add_noise(batch, noise, steps)
        return F.mse_loss(denoiser(noisy, steps), noise)

    @torch.no_grad()
    def sample(
        self, denoiser: nn.Module, count: int, batch_size: int, rng: torch.Generator
    ) -> Tensor:
        """Samples by DDIM with η = 0 (Song et al., ICLR 2021, arXiv 2010.02502, equation 12).

        Raises :class:`~dstbench.errors.DivergedError` where the denoiser's output is not finite.
        """
        shape = self.first_stage.latents["train"].shape[1:]
        noise = torch.randn((count, *shape), generator=rng)
        was_training = denoiser.training
        denoiser.eval()
        try:
            images = [
                self.first_stage.decode(self._denoise(denoiser, part.to(self.workspace.device)))
                for part in torch.split(noise, batch_size)
            ]
        finally:
            denoiser.train(was_training)
        return torch.cat([part.cpu() for part in images])

    @torch.no_grad()
    def reconstructions(self, split: Split, indices: Tensor) -> Tensor:
        """The images at ``indices`` (int64), encoded and decoded by the autoencoder."""
        return self.first_stage.decode(self.batch(split, indices)).cpu()

    def metadata(self) -> dict[str, float | int | str]:
        return self.first_stage.metadata

    def _denoise(self, denoiser: nn.Module, latents: Tensor) -> Tensor:
        for step in self.scheduler.timesteps:
            steps = step.expand(len(latents)).to(latents.device)
            noise = denoiser(latents, steps)
            latents = self.scheduler.step(noise, step, latents).prev_sample
        # The quantiser would turn NaN into an ordinary code, and the images would look fine.
        if not latents.isfinite().all():
            raise DivergedError("the denoiser's samples are not finite: its training has diverged")
        return latents


def _check_image_size(settings: LatentDiffusionSettings, shape: Sequence[int]) -> None:
    first_stage, denoiser = settings.autoencoder.downsampling, settings.downsampling
    height, width = shape[-2:]
    if height % (first_stage * denoiser) or width % (first_stage * denoiser):
        raise ConfigError(
            f"images of {height}×{width} pixels do not fit the model: "
            f"autoencoder.block_out_channels halves them to 1/{first_stage} and "
            f"block_out_channels to 1/{denoiser} of that, so that height and width must be "
            f"multiples of {first_stage * denoiser}; give fewer resolutions"
        )
