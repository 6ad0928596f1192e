"""The first stage: a VQ autoencoder, trained once per dataset, and the latents it makes.

It is the vector-quantised autoencoder of 'High-Resolution Image Synthesis with Latent Diffusion
Models' (Rombach et al., CVPR 2022, arXiv 2112.10752), here trained with the squared pixel error
and the codebook's losses alone: no perceptual and no adversarial loss.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import VQModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from dstbench.contracts import Data, Split, Workspace
from dstbench.errors import ConfigError
from dstbench_ldm.settings import FirstStageSettings

FORMAT = 1
"""Part of the cache's key; a change of this module that changes its result counts it up."""

BATCH = 16
"""Images encoded or decoded at a time when there is nothing to learn."""


@dataclass(frozen=True)
class FirstStage:
    """A frozen autoencoder and the latents of its dataset.

    ``latents`` are float32 (N, C, h, w) on the CPU, multiplied by ``scaling_factor``, which gives
    the training split's latents unit standard deviation.
    """

    autoencoder: Any
    scaling_factor: float
    latents: dict[Split, Tensor]
    facts: dict[str, float | int | str]

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (N, C, h, w) to uint8 images (N, C, H, W): quantised, then decoded."""
        return _decode(self.autoencoder, latents / self.scaling_factor)


def prepare_first_stage(
    settings: FirstStageSettings, data: Data, workspace: Workspace
) -> FirstStage:
    """The first stage for ``data``: from the cache, or trained now and cached.

    Raises :class:`~dstbench.errors.ConfigError` where the training diverges.
    """

    def make(folder: Path) -> None:
        autoencoder = _train(settings, data, workspace)
        autoencoder.save_pretrained(folder / "autoencoder", safe_serialization=True)
        latents = {
            "train": _encode(autoencoder, data, data.train),
            "validation": _encode(autoencoder, data, data.validation),
        }
        save_file(latents, folder / "latents.safetensors")
        facts = _facts(autoencoder, latents, data)
        (folder / "facts.json").write_text(json.dumps(facts, indent=2))
        workspace.report(f"first stage: {facts['first_stage_rmse']:.4f} RMSE on validation images")

    key = {"format": FORMAT, "data": data.fingerprint, "settings": settings.model_dump(mode="json")}
    with _seeded(settings.seed, workspace.device):
        folder = workspace.cache.folder("ldm-first-stage", key, make)
        autoencoder = VQModel.from_pretrained(
            folder / "autoencoder", use_safetensors=True, low_cpu_mem_usage=False
        )
    facts = json.loads((folder / "facts.json").read_text())
    scaling_factor = facts["scaling_factor"]
    latents = load_file(folder / "latents.safetensors")
    return FirstStage(
        autoencoder=autoencoder.to(workspace.device).eval().requires_grad_(False),
        scaling_factor=scaling_factor,
        latents={name: latents[name] * scaling_factor for name in ("train", "validation")},
        facts=facts,
    )


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Own random numbers, so that a cell's do not depend on what the cache already holds."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def build_autoencoder(settings: FirstStageSettings, channels: int) -> Any:
    """diffusers' ``VQModel`` for images of ``channels``, with fresh weights."""
    levels = len(settings.block_out_channels)
    return VQModel(
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=settings.block_out_channels,
        layers_per_block=settings.layers_per_block,
        latent_channels=settings.latent_channels,
        num_vq_embeddings=settings.codes,
        norm_num_groups=settings.norm_num_groups,
    )


def _train(settings: FirstStageSettings, data: Data, workspace: Workspace) -> Any:
    """An autoencoder trained on ``data.train``.

    The first half of the steps leaves the quantiser out; then the codes are put on latents of
    training images. Codes that start around zero, as ``VQModel`` initialises them, would mostly
    stay unused.
    """
    device = workspace.device
    rng = torch.Generator().manual_seed(settings.seed)
    autoencoder = build_autoencoder(settings, channels=data.train[0].shape[0]).to(device)
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    warm_up = settings.steps // 2

    for step in range(settings.steps):
        if step == warm_up:
            _place_codes(autoencoder, data, rng)
        chosen = torch.randint(len(data.train), (settings.batch_size,), generator=rng)
        images = _pixels(data, [data.train[i] for i in chosen.tolist()]).to(device)
        latents = autoencoder.encode(images).latents
        decoded, codebook_loss = autoencoder.decode(
            latents, force_not_quantize=step < warm_up, return_dict=False
        )
        loss = F.mse_loss(decoded, images) + codebook_loss.mean()
        if not loss.isfinite():
            raise ConfigError(
                f"the first stage's training diverged at step {step + 1}: "
                f"first_stage.learning_rate is {settings.learning_rate}; give a lower one"
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % max(1, settings.steps // 5) == 0:
            workspace.report(
                f"first stage: step {step + 1}/{settings.steps}, loss {loss.item():.4f}"
            )
    return autoencoder.eval()


@torch.no_grad()
def _place_codes(autoencoder: Any, data: Data, rng: torch.Generator) -> None:
    """Put the codes on latent vectors of random training images."""
    codes = autoencoder.quantize.embedding.weight
    chosen = torch.randperm(len(data.train), generator=rng)[: len(codes)]
    latents = _encode(autoencoder, data, [data.train[i] for i in chosen.tolist()])
    vectors = latents.movedim(1, -1).flatten(0, -2)
    codes.copy_(vectors[torch.randint(len(vectors), (len(codes),), generator=rng)])


@torch.no_grad()
def _encode(autoencoder: Any, data: Data, items: Sequence[Any]) -> Tensor:
    """Latents of ``items`` before quantisation and scaling, float32 (N, C, h, w) on the CPU."""
    batches = [
        autoencoder.encode(_pixels(data, batch).to(autoencoder.device)).latents.cpu()
        for batch in _batches(items)
    ]
    return torch.cat(batches).contiguous()


@torch.no_grad()
def _decode(autoencoder: Any, latents: Tensor) -> Tensor:
    """Unscaled latents (N, C, h, w) to uint8 images (N, C, H, W)."""
    pixels: Tensor = autoencoder.decode(latents).sample
    return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def _facts(
    autoencoder: Any, latents: dict[str, Tensor], data: Data
) -> dict[str, float | int | str]:
    """What is recorded: errors are those of the validation split, with pixels in 0…1."""
    squared_errors = []
    encoded = torch.split(latents["validation"], BATCH)
    for items, batch in zip(_batches(data.validation), encoded, strict=True):
        decoded = _decode(autoencoder, batch.to(autoencoder.device)).cpu()
        errors = (decoded.double() - data.to_images(items)) / 255
        squared_errors.append(errors.square().flatten(1).mean(dim=1))
    return {
        "scaling_factor": 1 / float(latents["train"].std()),
        "first_stage_parameters": autoencoder.num_parameters(),
        "first_stage_rmse": float(torch.cat(squared_errors).mean().sqrt()),
    }


def _batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))


def _pixels(data: Data, items: Sequence[Any]) -> Tensor:
    """Images of ``items`` as floats in -1…1."""
    return data.to_images(items) / 127.5 - 1
