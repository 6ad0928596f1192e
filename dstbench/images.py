"""Images as the items of a dataset: stacked, and hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
