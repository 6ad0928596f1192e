"""Real images made worse, by which a reader sees what a score means."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SHRUNK = 4
"""How many times smaller the thumbnails are, on a side, that blurred images are enlarged from."""
PATCHES = 4
"""Patches on a side that images are cut into to be shuffled."""


def blurred(images: Tensor) -> Tensor:
    """uint8 images (N, C, H, W), shrunk to thumbnails and enlarged again."""
    import torch
    from torch.nn import functional as F

    size = images.shape[-2:]
    small = [max(1, side // SHRUNK) for side in size]
    thumbnails = F.interpolate(images.float(), small, mode="area")
    return F.interpolate(thumbnails, size, mode="bilinear").round().clamp(0, 255).to(torch.uint8)


def upside_down(images: Tensor) -> Tensor:
    """uint8 images (N, C, H, W), the last row first."""
    return images.flip(-2)


def shuffled(images: Tensor) -> Tensor:
    """uint8 images (N, C, H, W), cut into 4×4 patches that are put together in another order, the
    same for all images; what is left at the lower and right edge stays."""
    import torch

    height, width = (max(1, side // PATCHES) for side in images.shape[-2:])
    rows, columns = (min(PATCHES, side) for side in images.shape[-2:])
    order = torch.randperm(rows * columns, generator=torch.Generator().manual_seed(0))
    result = images.clone()
    for place, chosen in enumerate(order.tolist()):
        (y, x), (v, u) = divmod(place, columns), divmod(chosen, columns)
        patch = images[..., v * height : (v + 1) * height, u * width : (u + 1) * width]
        result[..., y * height : (y + 1) * height, x * width : (x + 1) * width] = patch
    return result


DISTORTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "blurred": blurred,
    "upside down": upside_down,
    "patches shuffled": shuffled,
}
