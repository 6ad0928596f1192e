"""Images that are diffused as they are, in place of a first stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dstbench.contracts import Data, Split


@dataclass(frozen=True)
class Pixels:
    """A dataset's images, as floats in -1…1."""

    data: Data
    horizontal_flip: bool
    device: torch.device

    @property
    def metadata(self) -> Mapping[str, float | int | str]:
        return {}

    def examples(self, split: Split, indices: Tensor) -> Tensor:
        """Images (N, C, H, W) on the device; with horizontal flips, those for training are pairs
        (N, 2, C, H, W): of the image, and of its mirror image."""
        items = self.data.split(split)
        pixels = torch.stack([items[index] for index in indices.tolist()]).to(self.device)
        images = pixels / 127.5 - 1
        if self.horizontal_flip and split == "train":
            return torch.stack([images, images.flip(-1)], dim=1)
        return images

    def decode(self, examples: Tensor) -> Tensor:
        """Floats (N, C, H, W) to uint8 images."""
        return ((examples + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
