"""The first stage, which all cells of a dataset share: an autoencoder and the latents it makes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import VQModel
from torch import Tensor

from dstbench.contracts import Data, Split, Workspace
from dstbench.files import mapped
from dstbench.journal import Journal
from dstbench_ldm.autoencoder import (
    BATCH,
    decode,
    encode,
    load_autoencoder,
    train_autoencoder,
    weights_hash,
)
from dstbench_ldm.settings import AutoencoderSettings, FirstStageSettings

FORMAT = 2
"""Version of what is cached; a change of this module that changes its result counts it up."""

REPORT_EVERY = 1024
"""Images between two reports of progress; whole batches."""

SPLITS: tuple[Split, ...] = ("train", "validation")


@dataclass(frozen=True)
class FirstStage:
    """A frozen autoencoder and the latents of its dataset.

    ``latents`` are float32 (N, C, h, w) on the CPU, mapped from disk; ``mirrored`` are those of the
    training images' mirror images, if they are asked for. The denoiser sees latents multiplied by
    ``scaling_factor``: where the settings give no other, those of the training split have unit
    standard deviation then.
    """

    autoencoder: Any
    scaling_factor: float
    latents: dict[Split, Tensor]
    mirrored: Tensor | None
    metadata: dict[str, float | int | str]

    def examples(self, split: Split, indices: Tensor) -> Tensor:
        """Scaled latents (N, C, h, w) on the autoencoder's device; of training images whose mirror
        images are encoded, too, pairs (N, 2, C, h, w)."""
        latents = self.latents[split][indices]
        if self.mirrored is not None and split == "train":
            latents = torch.stack([latents, self.mirrored[indices]], dim=1)
        latents = latents * self.scaling_factor
        device = self.autoencoder.device
        if device.type == "cuda":
            latents = latents.pin_memory()  # so that the copy need not be waited for
        return latents.to(device, non_blocking=True)

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (N, C, h, w) to uint8 images (N, C, H, W): quantised, then decoded."""
        return decode(self.autoencoder, latents / self.scaling_factor)

    @torch.no_grad()
    def reconstructions(self, split: Split, indices: Tensor) -> Tensor:
        """The images at ``indices`` (int64), encoded and decoded: uint8 (N, C, H, W) on the CPU."""
        latents = self.latents[split][indices] * self.scaling_factor
        return self.decode(latents.to(self.autoencoder.device)).cpu()


def prepare_first_stage(
    settings: FirstStageSettings, data: Data, workspace: Workspace
) -> FirstStage:
    """The first stage for ``data``: the autoencoder published or trained, its latents cached.

    Raises :class:`~dstbench.errors.ConfigError` where the training diverges, or where a published
    autoencoder has other sizes than the settings, and :class:`~dstbench.errors.DataError` where it
    cannot be loaded.
    """
    with _seeded(settings.autoencoder.seed, workspace.device):
        if settings.first_stage == "train":
            autoencoder = _trained(settings.autoencoder, data, workspace)
        else:
            autoencoder = load_autoencoder(settings.first_stage, settings.autoencoder)
    autoencoder = autoencoder.to(workspace.device).eval().requires_grad_(False)
    return _encoded(autoencoder, settings, data, workspace)


def _trained(settings: AutoencoderSettings, data: Data, workspace: Workspace) -> Any:
    """The autoencoder of these settings: cached, or trained now."""

    def make(folder: Path) -> None:
        autoencoder = train_autoencoder(settings, data, workspace, folder)
        autoencoder.save_pretrained(folder / "autoencoder", safe_serialization=True)

    key = {"format": FORMAT, "data": data.fingerprint, "settings": settings.model_dump(mode="json")}
    folder = workspace.cache.folder("ldm-first-stage", key, make, resumable=True)
    return VQModel.from_pretrained(
        folder / "autoencoder", use_safetensors=True, low_cpu_mem_usage=False
    )


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Own random numbers, so that a cell's do not depend on what the cache already holds."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _encoded(
    autoencoder: Any, settings: FirstStageSettings, data: Data, workspace: Workspace
) -> FirstStage:
    """The autoencoder with the latents of ``data``, from the cache or made now."""
    shape = settings.latent_shape(data.train[0].shape)

    def make(folder: Path) -> None:
        for split in SPLITS:
            _write_latents(folder / split, autoencoder, data, split, shape, workspace.report)
        metadata = _metadata(autoencoder, latents(folder), data)
        (folder / "facts.json").write_text(json.dumps(metadata, indent=2))
        if "first_stage_rmse" in metadata:
            error = metadata["first_stage_rmse"]
            workspace.report(f"first stage: {error:.4f} RMSE on validation images")

    def latents(folder: Path) -> dict[Split, Tensor]:
        return {
            split: mapped(folder / split, (len(data.split(split)), *shape), torch.float32)
            for split in SPLITS
        }

    key = {"format": FORMAT, "data": data.fingerprint, "autoencoder": weights_hash(autoencoder)}
    folder = workspace.cache.folder("ldm-latents", key, make, resumable=True)
    metadata = json.loads((folder / "facts.json").read_text())
    if settings.latent_scale != "std":
        metadata["scaling_factor"] = settings.latent_scale
    return FirstStage(
        autoencoder=autoencoder,
        scaling_factor=metadata["scaling_factor"],
        latents=latents(folder),
        mirrored=_mirrored(autoencoder, shape, data, workspace)
        if settings.horizontal_flip
        else None,
        metadata=metadata,
    )


def _mirrored(
    autoencoder: Any, shape: tuple[int, int, int], data: Data, workspace: Workspace
) -> Tensor:
    """Latents (N, C, h, w) of the training images' mirror images, from the cache or made now."""

    def make(folder: Path) -> None:
        path, report = folder / "train", workspace.report
        _write_latents(path, autoencoder, data, "train", shape, report, mirrored=True)

    key = {"format": FORMAT, "data": data.fingerprint, "autoencoder": weights_hash(autoencoder)}
    folder = workspace.cache.folder("ldm-mirrored-latents", key, make, resumable=True)
    return mapped(folder / "train", (len(data.train), *shape), torch.float32)


def _write_latents(
    path: Path,
    autoencoder: Any,
    data: Data,
    split: Split,
    shape: Sequence[int],
    report: Callable[[str], None],
    *,
    mirrored: bool = False,
) -> None:
    """Encode a split into a file, going on where a stopped process has left it."""
    items = data.split(split)
    parts: list[int] = []
    with Journal(path, lambda content, _: parts.append(len(content))) as journal:
        for start in range(len(parts) * BATCH, len(items), BATCH):
            batch = items[start : start + BATCH]
            journal.add(encode(autoencoder, data, batch, mirrored=mirrored).numpy().tobytes())
            if start and start % REPORT_EVERY == 0:
                images = "mirrored images" if mirrored else "images"
                report(f"first stage: {start:,} of {len(items):,} {images} for {split} encoded")


def _metadata(
    autoencoder: Any, latents: dict[Split, Tensor], data: Data
) -> dict[str, float | int | str]:
    """What is recorded: errors are those of the validation split, if there is one, with pixels in
    0…1."""
    metadata: dict[str, float | int | str] = {
        "scaling_factor": 1 / float(latents["train"].std()),
        "first_stage_parameters": autoencoder.num_parameters(),
    }
    if not len(data.validation):
        return metadata
    squared_errors = []
    for start in range(0, len(data.validation), BATCH):
        batch = latents["validation"][start : start + BATCH].to(autoencoder.device)
        images = data.to_images(data.validation[start : start + BATCH])
        errors = (decode(autoencoder, batch).cpu().double() - images) / 255
        squared_errors.append(errors.square().flatten(1).mean(dim=1))
    return metadata | {"first_stage_rmse": float(torch.cat(squared_errors).mean().sqrt())}
