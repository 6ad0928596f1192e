"""The diffusion transformer, as the harness drives it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from dstbench_ldm.classes import classes_told
from dstbench_ldm.diffusion import ImageDiffusion, Objective
from dstbench_ldm.settings import TRIAL_AUTOENCODER
from torch import Tensor

from dstbench.contracts import Data, Items, Outline, SamplingState, Split, Workspace
from dstbench.errors import ConfigError
from dstbench_dit.pixels import Pixels
from dstbench_dit.settings import DiffusionTransformerSettings

if TYPE_CHECKING:
    from dstbench_ldm.first_stage import FirstStage


class DiffusionTransformer(ImageDiffusion[DiffusionTransformerSettings]):
    """DiT: a transformer over patches of latents, or of images, by DDPM or by flow matching.

    'Scalable Diffusion Models with Transformers' (Peebles and Xie, ICCV 2023, arXiv 2212.09748),
    with adaLN-Zero blocks. The first stage is that of the model 'ldm', which it shares with it.

    Sparsifiable are all linear layers, the first and the last, which embed patches and times and
    modulate blocks included. Queries, keys and values of a block are one matrix.

    Raises :class:`~dstbench.errors.ConfigError` where the images cannot be cut into patches, and
    where it is conditional on labels that are not there.
    """

    name = "dit"
    Settings = DiffusionTransformerSettings
    trial_settings: ClassVar[Mapping[str, Any]] = {
        "autoencoder": TRIAL_AUTOENCODER,
        "layers": 2,
        "width": 32,
        "heads": 2,
        "sampling_steps": 4,
    }
    sampling_settings = ("sampling_steps", "guidance_scale")
    first_stage: FirstStage | Pixels

    def __init__(
        self, settings: DiffusionTransformerSettings, data: Data, workspace: Workspace
    ) -> None:
        super().__init__(settings, data, workspace)
        _check_image_size(settings, data.train[0].shape)
        if settings.space == "latent":
            from dstbench_ldm.first_stage import prepare_first_stage

            self.first_stage = prepare_first_stage(settings, data, workspace)
        else:
            self.first_stage = Pixels(data, settings.horizontal_flip, workspace.device)
        self.objective = _objective(settings)

    @classmethod
    def for_sampling(
        cls,
        settings: DiffusionTransformerSettings,
        data: Data,
        state: SamplingState,
        workspace: Workspace,
    ) -> DiffusionTransformer:
        _check_image_size(settings, data.train[0].shape)
        model = cls.without_data(settings, data, state, workspace)
        if settings.space == "latent":
            from dstbench_ldm.decoder import restored

            model.first_stage = restored(state, workspace.device)
        else:
            model.first_stage = Pixels(data, settings.horizontal_flip, workspace.device)
        model.objective = _objective(settings)
        return model

    def sampling_state(self) -> SamplingState:
        """The first stage's decoding half and the scale of latents, if it diffuses these, and the
        labels."""
        if isinstance(self.first_stage, Pixels):
            return super().sampling_state()
        from dstbench_ldm.decoder import decoder_state

        return {**decoder_state(self.first_stage), **super().sampling_state()}

    @property
    def example_shape(self) -> tuple[int, int, int]:
        return self.settings.example_shape(self.data.train[0].shape)

    @classmethod
    def narrower(cls, settings: DiffusionTransformerSettings) -> list[DiffusionTransformerSettings]:
        """Fewer channels per head."""
        step = math.lcm(4, settings.heads)
        widths = range(step, settings.width + 1, step)
        return [settings.model_copy(update={"width": width}) for width in widths]

    @classmethod
    def outline(cls, settings: DiffusionTransformerSettings, items: Items) -> Outline | None:
        """The transformer, called on an example (1, C, h, w), its time (1,), and the index of its
        label (1,) where it is told that."""
        from dstbench_dit.transformer import Transformer

        _check_image_size(settings, items.shape)
        classes = classes_told(settings, items)
        if classes is None:
            return None
        shape = settings.example_shape(items.shape)
        whole = settings.objective == "ddpm"
        time = torch.zeros(1, dtype=torch.int64 if whole else torch.float32)
        label = [torch.zeros(1, dtype=torch.int64)] if classes else []
        return Outline(
            Transformer(settings, shape, classes),
            (torch.zeros(1, *shape), time, *label),
            settings.sampling_steps * settings.calls_per_step,
        )

    def reconstructions(self, split: Split, indices: Tensor) -> Tensor | None:
        """The images at ``indices`` (int64), encoded and decoded; ``None`` of pixels."""
        stage = self.first_stage
        return None if isinstance(stage, Pixels) else stage.reconstructions(split, indices)


def _objective(settings: DiffusionTransformerSettings) -> Objective:
    if settings.objective == "flow-matching":
        from dstbench_dit.flow import FlowMatching

        return FlowMatching(settings.sampling_steps)
    from diffusers import DDIMScheduler
    from dstbench_ldm.sampling import NoisePrediction

    scheduler = DDIMScheduler(
        num_train_timesteps=settings.diffusion_steps,
        beta_schedule="linear",
        beta_start=settings.beta_start,
        beta_end=settings.beta_end,
        clip_sample=settings.space == "pixel",
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(settings.sampling_steps)
    return NoisePrediction(scheduler)


def _check_image_size(settings: DiffusionTransformerSettings, shape: Sequence[int]) -> None:
    height, width = shape[-2:]
    halved = settings.autoencoder.downsampling if settings.space == "latent" else 1
    side = settings.patch_size * halved
    if height % side or width % side:
        why = (
            f"autoencoder.block_out_channels halves them to 1/{halved}, and " if halved > 1 else ""
        )
        raise ConfigError(
            f"images of {height}×{width} pixels do not fit the model: {why}patch_size is "
            f"{settings.patch_size}, so that height and width must be multiples of {side}"
        )
