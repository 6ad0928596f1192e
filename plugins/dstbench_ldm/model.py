"""The latent diffusion model, as the harness drives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dstbench.contracts import Data, Items, Model, Outline, SamplingState, Split, Workspace
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
    sampling_settings = ("sampling_steps", "timestep_spacing", "eta")
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

        # Slow, and not needed to list the plugins.
        from dstbench_ldm.first_stage import prepare_first_stage
        from dstbench_ldm.sampling import build_scheduler

        self.first_stage = prepare_first_stage(settings, data, workspace)
        self.scheduler = build_scheduler(settings)

    @classmethod
    def for_sampling(
        cls,
        settings: LatentDiffusionSettings,
        data: Data,
        state: SamplingState,
        workspace: Workspace,
    ) -> LatentDiffusion:
        from dstbench_ldm.decoder import restored
        from dstbench_ldm.sampling import build_scheduler

        _check_image_size(settings, data.train[0].shape)
        model = cls.__new__(cls)  # there is nothing to prepare a first stage from
        Model.__init__(model, settings, data, workspace)
        model.first_stage = restored(state, workspace.device)
        model.scheduler = build_scheduler(settings)
        return model

    def sampling_state(self) -> SamplingState:
        """The autoencoder's decoding half, and the scale of latents."""
        from dstbench_ldm.decoder import decoder_state

        return decoder_state(self.first_stage)

    def diffusers_pipeline(self, denoiser: nn.Module) -> tuple[Any, Mapping[str, Any]]:
        """diffusers' ``LDMPipeline``, of square images."""
        from dstbench_ldm.sampling import build_pipeline

        _, height, width = self._latent_shape
        if height != width:
            raise ConfigError("diffusers' LDMPipeline makes square images only")
        pipeline = build_pipeline(denoiser, self.first_stage, self.settings, height)
        arguments = {"num_inference_steps": self.settings.sampling_steps}
        return pipeline, arguments | ({"eta": self.settings.eta} if self.settings.eta else {})

    @property
    def _latent_shape(self) -> tuple[int, int, int]:
        return self.settings.latent_shape(self.data.train[0].shape)

    @classmethod
    def outline(cls, settings: LatentDiffusionSettings, items: Items) -> Outline:
        """The U-Net, called on a latent (1, C, h, w) and its timestep (1,)."""
        from dstbench_ldm.denoiser import build_denoiser

        _check_image_size(settings, items.shape)
        latent = torch.zeros(1, *settings.latent_shape(items.shape))
        timestep = torch.zeros(1, dtype=torch.int64)
        return Outline(build_denoiser(settings), (latent, timestep), settings.sampling_steps)

    def batch(self, split: Split, indices: Tensor) -> Tensor:
        """Scaled latents (N, C, h, w); with horizontal flips, those for training are pairs
        (N, 2, C, h, w): of the image, and of its mirror image."""
        latents, mirrored = self.first_stage.latents[split][indices], self.first_stage.mirrored
        if mirrored is not None and split == "train":
            latents = torch.stack([latents, mirrored[indices]], dim=1)
        latents = latents * self.first_stage.scaling_factor
        if self.workspace.device.type == "cuda":
            latents = latents.pin_memory()  # so that the copy need not be waited for
        return latents.to(self.workspace.device, non_blocking=True)

    def loss(self, denoiser: nn.Module, batch: Tensor, rng: torch.Generator) -> Tensor:
        """Mean squared error of the predicted noise; of a pair, either latent is seen.

        'Denoising Diffusion Probabilistic Models' (Ho et al., 2020), equation 14.
        """
        steps = torch.randint(self.settings.diffusion_steps, (len(batch),), generator=rng)
        noise = torch.randn((len(batch), *batch.shape[-3:]), generator=rng).to(batch.device)
        if batch.dim() == 5:
            chosen = torch.randint(2, (len(batch),), generator=rng)
            batch = batch[torch.arange(len(batch)), chosen]
        steps = steps.to(batch.device)
        noisy = self.scheduler.add_noise(batch, noise, steps)
        return F.mse_loss(denoiser(noisy, steps), noise)

    @torch.no_grad()
    def sample(
        self, denoiser: nn.Module, count: int, batch_size: int, rng: torch.Generator
    ) -> Tensor:
        """Samples by DDIM (Song et al., ICLR 2021, arXiv 2010.02502, equation 12).

        Every sample starts from the same noise whatever η is, and has fresh noise of its own in
        each step, whichever batch it is in.

        Raises :class:`~dstbench.errors.DivergedError` where the denoiser's output is not finite.
        """
        from dstbench_ldm.sampling import fresh_noise

        shape = self._latent_shape
        fresh = fresh_noise(count, rng) if self.settings.eta else []
        noise = torch.randn((count, *shape), generator=rng)
        was_training = denoiser.training
        denoiser.eval()
        try:
            images = [
                self.first_stage.decode(
                    self._denoise(
                        denoiser,
                        noise[start : start + batch_size].to(self.workspace.device),
                        fresh[start : start + batch_size],
                    )
                )
                for start in range(0, count, batch_size)
            ]
        finally:
            denoiser.train(was_training)
        return torch.cat([part.cpu() for part in images])

    @torch.no_grad()
    def reconstructions(self, split: Split, indices: Tensor) -> Tensor:
        """The images at ``indices`` (int64), encoded and decoded by the autoencoder."""
        latents = self.first_stage.latents[split][indices] * self.first_stage.scaling_factor
        return self.first_stage.decode(latents.to(self.workspace.device)).cpu()

    def metadata(self) -> dict[str, float | int | str]:
        return self.first_stage.metadata

    def _denoise(
        self, denoiser: nn.Module, latents: Tensor, fresh: Sequence[torch.Generator]
    ) -> Tensor:
        shape = latents.shape[1:]
        for step in self.scheduler.timesteps:
            steps = step.expand(len(latents)).to(latents.device)
            noise = denoiser(latents, steps)
            added = [torch.randn(shape, generator=each) for each in fresh]
            latents = self.scheduler.step(
                noise,
                step,
                latents,
                eta=self.settings.eta,
                variance_noise=torch.stack(added).to(latents.device) if added else None,
            ).prev_sample
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
