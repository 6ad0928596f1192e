"""The autoencoder of the first stage: trained on the dataset, or one that is published.

It is the vector-quantised autoencoder of 'High-Resolution Image Synthesis with Latent Diffusion
Models' (Rombach et al., CVPR 2022). Ours is trained with the squared pixel error and the codebook's
losses alone: no perceptual and no adversarial loss.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import VQModel
from torch import Tensor
from torch.nn import functional as F

from dstbench.contracts import Data, Workspace
from dstbench.errors import ConfigError, DataError
from dstbench.execution import Held
from dstbench.files import open_regular
from dstbench_ldm.progress import Progress
from dstbench_ldm.settings import AutoencoderSettings

BATCH = 16
"""Images encoded or decoded at a time when there is nothing to learn."""

PART = "vqvae"
"""The folder of the autoencoder in a published pipeline."""


def build_autoencoder(settings: AutoencoderSettings, channels: int) -> Any:
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


def load_autoencoder(name: str, settings: AutoencoderSettings) -> Any:
    """A published autoencoder: a folder's, or the one of this name in the hub's cache or the hub.

    Raises :class:`~dstbench.errors.DataError` where it cannot be loaded, and
    :class:`~dstbench.errors.ConfigError` where it has other sizes than the settings.
    """
    folder = Path(name).expanduser()
    whole = folder.is_dir() and not (folder / PART).is_dir()
    try:
        if folder.is_dir():
            _check_files(folder if whole else folder / PART)
        autoencoder = VQModel.from_pretrained(
            folder if folder.is_dir() else name, subfolder=None if whole else PART
        )
    except Exception as error:  # diffusers and the hub raise errors of many kinds
        raise DataError(
            f"first_stage '{name}' cannot be loaded: {error}. Without a network, name a folder "
            f"with its '{PART}' (config.json and weights), or fill the cache elsewhere with "
            f"`hf download {name} --include '{PART}/*'` and copy it here"
        ) from error
    _check_sizes(name, autoencoder.config, settings)
    return autoencoder


def _check_files(folder: Path) -> None:
    """Raise :class:`OSError` for what is neither a folder nor a regular file, such as a pipe."""
    for file in folder.iterdir():
        if not file.is_dir():
            open_regular(file).close()


def _check_sizes(name: str, config: Any, settings: AutoencoderSettings) -> None:
    published = {
        "latent_channels": config.latent_channels,
        "block_out_channels": tuple(config.block_out_channels),
    }
    for key, theirs in published.items():
        if (ours := getattr(settings, key)) != theirs:
            raise ConfigError(
                f"first_stage '{name}' has {key} = {theirs}, but the settings say {ours}: "
                f"set autoencoder.{key} to {theirs}"
            )


def weights_hash(autoencoder: Any) -> str:
    """SHA-256 (hex) of all weights."""
    content = hashlib.sha256()
    for name, tensor in sorted(autoencoder.state_dict().items()):
        content.update(name.encode())
        content.update(tensor.cpu().contiguous().numpy().tobytes())
    return content.hexdigest()


def train_autoencoder(
    settings: AutoencoderSettings, data: Data, workspace: Workspace, unfinished: Path
) -> Any:
    """An autoencoder trained on ``data.train``.

    The first half of the steps leaves the quantiser out; then the codes are put on latents of
    training images. Codes that start around zero, as ``VQModel`` initialises them, would mostly
    stay unused. What a stopped training has left in the folder ``unfinished`` is gone on with.

    Raises :class:`~dstbench.errors.ConfigError` where the training diverges.
    """
    device = workspace.device
    rng = torch.Generator().manual_seed(settings.seed)
    autoencoder = build_autoencoder(settings, channels=data.train[0].shape[0]).to(device)
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    warm_up = settings.steps // 2
    progress = Progress(unfinished / "training.pt", autoencoder, optimizer, schedule, rng)

    with Held() as held:
        for step in range(progress.load(workspace), settings.steps):
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
                    f"autoencoder.learning_rate is {settings.learning_rate}; give a lower one"
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if (step + 1) % max(1, settings.steps // 5) == 0:
                workspace.report(
                    f"first stage: step {step + 1}/{settings.steps}, loss {loss.item():.4f}"
                )
            if held.received is not None or progress.is_due():
                progress.save(step + 1)
            if held.received is not None:
                workspace.report(f"first stage: stopped after step {step + 1}, which is saved")
                held.deliver()
    progress.remove()
    return autoencoder.eval()


@torch.no_grad()
def encode(autoencoder: Any, data: Data, items: Sequence[Any], *, mirrored: bool = False) -> Tensor:
    """Latents of ``items``, or of their mirror images, before quantisation and scaling: float32
    (N, C, h, w) on the CPU."""
    pixels = _pixels(data, items)
    pixels = pixels.flip(-1) if mirrored else pixels
    latents: Tensor = autoencoder.encode(pixels.to(autoencoder.device)).latents
    return latents.cpu().contiguous()


@torch.no_grad()
def decode(autoencoder: Any, latents: Tensor) -> Tensor:
    """Unscaled latents (N, C, h, w) to uint8 images (N, C, H, W): quantised, then decoded."""
    pixels: Tensor = autoencoder.decode(latents).sample
    return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


@torch.no_grad()
def _place_codes(autoencoder: Any, data: Data, rng: torch.Generator) -> None:
    """Put the codes on latent vectors of random training images."""
    codes = autoencoder.quantize.embedding.weight
    chosen = torch.randperm(len(data.train), generator=rng)[: len(codes)]
    latents = [
        encode(autoencoder, data, [data.train[i] for i in part.tolist()])
        for part in torch.split(chosen, BATCH)
    ]
    vectors = torch.cat(latents).movedim(1, -1).flatten(0, -2)
    codes.copy_(vectors[torch.randint(len(vectors), (len(codes),), generator=rng)])


def _pixels(data: Data, items: Sequence[Any]) -> Tensor:
    """Images of ``items`` as floats in -1…1."""
    return data.to_images(items) / 127.5 - 1
