"""Samples of a trained cell, always from the noise of its seed, and those that are kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from dstbench.contracts import Data, Model, Split
from dstbench.records import Record
from dstbench.seeds import derive
from dstbench.store.files import write_atomically
from dstbench.store.folder import CellFolder

KEPT_SAMPLES = 64
"""Sample images kept of each cell, for its grid and the leaderboard's sheet."""
KEPT_REALS = 12
"""Real images kept beside them, for the sheet: as many as it has columns."""


@dataclass(frozen=True)
class Trained:
    """A trained cell: its denoiser, and the model that samples from it."""

    record: Record
    model: Model
    denoiser: nn.Module
    masks: dict[str, Tensor]
    """Masks (bool) by parameter name; none of a dense cell."""


def draw_samples(
    model: Model, denoiser: nn.Module, seed: int, count: int, batch_size: int
) -> Sequence[Any] | Tensor:
    """Samples as items, from the noise of a cell's seed."""
    rng = torch.Generator().manual_seed(derive(seed, "samples"))
    denoiser.eval()
    with torch.no_grad():
        return model.sample(denoiser, count, batch_size, rng)


def keep_samples(folder: CellFolder, images: Tensor) -> None:
    """Keep sample images (N, C, H, W), and a picture of all of them."""
    folder.write_samples(images.permute(0, 2, 3, 1).contiguous().numpy())
    grid = to_pil_image(make_grid(images, nrow=math.ceil(math.sqrt(len(images))), padding=0))
    write_atomically(folder.sheet, lambda path: grid.save(path, format="png"))


def keep_reals(folder: CellFolder, data: Data, split: Split) -> None:
    """Keep a few real images of a split, evenly spaced: its beginning may be all of one class."""
    items = data.split(split)
    count = min(KEPT_REALS, len(items))
    images = data.to_images([items[i * len(items) // count] for i in range(count)])
    folder.write_reals(images.permute(0, 2, 3, 1).contiguous().numpy())
