"""The latent diffusion model, as the harness drives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from dstbench.contracts import Data, Items, Outline, SamplingState, Split, Workspace
from dstbench.errors import ConfigError
from dstbench_ldm.classes import classes_told
from dstbench_ldm.diffusion import ImageDiffusion
from dstbench_ldm.settings import TRIAL_AUTOENCODER, LatentDiffusionSettings

if TYPE_CHECKING:
    from dstbench_ldm.first_stage import FirstStage


class LatentDiffusion(ImageDiffusion[LatentDiffusionSettings]):
    """Latent diffusion: a U-Net predicts the noise in the latents of a VQ autoencoder.

    'High-Resolution Image Synthesis with Latent Diffusion Models' (Rombach et al., CVPR 2022,
    arXiv 2112.10752), unconditional, or conditional on labels with classifier-free guidance.

    Raises :class:`~dstbench.errors.ConfigError` where the images cannot be halved as often as the
    first stage and the denoiser do, and where it is conditional on labels that are not there.
    """

    name = "ldm"
    Settings = LatentDiffusionSettings
    sampling_settings = ("sampling_steps", "timestep_spacing", "eta", "guidance_scale")
    trial_settings: ClassVar[Mapping[str, Any]] = {
        "autoencoder": TRIAL_AUTOENCODER,
        "block_out_channels": (8, 16),
        "attention": (False, True),
        "layers_per_block": 1,
        "attention_head_dim": 8,
        "norm_num_groups": 4,
        "sampling_steps": 4,
    }
    first_stage: FirstStage

    def __init__(self, settings: LatentDiffusionSettings, data: Data, workspace: Workspace) -> None:
        super().__init__(settings, data, workspace)
        _check_image_size(settings, data.train[0].shape)

        # Slow, and not needed to list the plugins.
        from dstbench_ldm.first_stage import prepare_first_stage
        from dstbench_ldm.sampling import NoisePrediction, build_scheduler

        self.first_stage = prepare_first_stage(settings, data, workspace)
        self.objective = NoisePrediction(build_scheduler(settings), settings.eta)

    @classmethod
    def for_sampling(
        cls,
        settings: LatentDiffusionSettings,
        data: Data,
        state: SamplingState,
        workspace: Workspace,
    ) -> LatentDiffusion:
        from dstbench_ldm.decoder import restored
        from dstbench_ldm.sampling import NoisePrediction, build_scheduler

        _check_image_size(settings, data.train[0].shape)
        model = cls.without_data(settings, data, state, workspace)
        model.first_stage = restored(state, workspace.device)
        model.objective = NoisePrediction(build_scheduler(settings), settings.eta)
        return model

    def sampling_state(self) -> SamplingState:
        """The autoencoder's decoding half, the scale of latents, and the labels."""
        from dstbench_ldm.decoder import decoder_state

        return {**decoder_state(self.first_stage), **super().sampling_state()}

    def diffusers_pipeline(self, denoiser: nn.Module) -> tuple[Any, Mapping[str, Any]]:
        """diffusers' ``LDMPipeline``, of square images and without labels."""
        from dstbench_ldm.sampling import build_pipeline

        if self.classes:
            raise ConfigError(
                "diffusers' LDMPipeline does not take labels, and this model is conditional on "
                "them: export it as packed or dense"
            )
        _, height, width = self.example_shape
        if height != width:
            raise ConfigError("diffusers' LDMPipeline makes square images only")
        pipeline = build_pipeline(denoiser, self.first_stage, self.settings, height)
        arguments = {"num_inference_steps": self.settings.sampling_steps}
        return pipeline, arguments | ({"eta": self.settings.eta} if self.settings.eta else {})

    @property
    def example_shape(self) -> tuple[int, int, int]:
        return self.settings.latent_shape(self.data.train[0].shape)

    @classmethod
    def outline(cls, settings: LatentDiffusionSettings, items: Items) -> Outline | None:
        """The U-Net, called on a latent (1, C, h, w), its timestep (1,), and the index of its label
        (1,) where it is told that."""
        from dstbench_ldm.denoiser import build_denoiser

        _check_image_size(settings, items.shape)
        classes = classes_told(settings, items)
        if classes is None:
            return None
        latent = torch.zeros(1, *settings.latent_shape(items.shape))
        timestep = torch.zeros(1, dtype=torch.int64)
        label = [torch.zeros(1, dtype=torch.int64)] if classes else []
        return Outline(
            build_denoiser(settings, classes),
            (latent, timestep, *label),
            settings.sampling_steps * settings.calls_per_step,
        )

    @classmethod
    def narrower(cls, settings: LatentDiffusionSettings) -> list[LatentDiffusionSettings]:
        return settings.narrower()

    def reconstructions(self, split: Split, indices: Tensor) -> Tensor:
        """The images at ``indices`` (int64), encoded and decoded by the autoencoder."""
        return self.first_stage.reconstructions(split, indices)


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
