"""Images as the items of a dataset: stacked, hashed, and as Pillow has them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


def stack_images(images: Sequence[Tensor] | Tensor) -> Tensor:
    """One tensor (N, C, H, W) of images (C, H, W)."""
    import torch

    return torch.stack(list(images))


def hash_images(*splits: Sequence[Tensor]) -> str:
    """SHA-256 (hex) of the shape and the pixels of every split, whose images have one shape."""
    content = hashlib.sha256()
    for images in splits:
        shape = images[0].shape if len(images) else ()
        content.update(str((len(images), *shape)).encode())
        for image in images:
            content.update(image.numpy().tobytes())
    return content.hexdigest()


def to_picture(image: Tensor) -> Image:
    """An image (C, H, W) of uint8, C = 1 or 3, in grey or in colour."""
    from PIL import Image

    pixels = image.movedim(0, -1).numpy()
    return Image.fromarray(pixels[..., 0] if len(image) == 1 else pixels)
