"""What networks that see photographs are given, and how many of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def as_input(images: Tensor, size: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalised RGB images (N, 3, size, size) of uint8 images (N, C, H, W), C = 1 or 3, as
    torch-fidelity gives them to a vision transformer.

    They are not cropped, and resized as TensorFlow 1 did, without antialiasing. ``mean`` and
    ``std`` of each channel are those of pixels from 0 to 1.
    """
    from torch_fidelity.interpolate_compat_tensorflow import (
        interpolate_bilinear_2d_like_tensorflow1x,
    )
    from torchvision.transforms.functional import normalize

    rgb = images.float().expand(-1, 3, -1, -1)
    resized = interpolate_bilinear_2d_like_tensorflow1x(rgb, (size, size), align_corners=False)
    scaled: Tensor = normalize(resized, [255 * m for m in mean], [255 * s for s in std])
    return scaled


def at_once(images: Tensor) -> Sequence[Tensor]:
    """Images (N, …) in the portions that a convolutional network takes least time for: on a CPU
    eight, whose activations stay in its caches; on other devices all."""
    count = max(1, len(images))
    size = 8 if images.device.type == "cpu" else count
    return [images[start : start + size] for start in range(0, count, size)]


def resize_in_words(size: int) -> str:
    """What torch-fidelity does to the size of images, in words."""
    return f"bilinear (TensorFlow 1) to {size}×{size}"
