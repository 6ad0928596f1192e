"""Images as they are kept: arrays of uint8 (n, H, W, C), C = 1 or 3."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dstbench.files import open_regular
from dstbench.store.files import write_atomically

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def read_images(path: Path) -> NDArray[np.uint8]:
    """The images in a file.

    Raises:
        OSError: if it cannot be read.
        ValueError, EOFError: if it is damaged, or holds something else.
    """
    import numpy as np

    try:
        with open_regular(path) as file:
            images: NDArray[np.uint8] = np.load(file, allow_pickle=False)
    except (MemoryError, OverflowError):
        raise ValueError("it claims to be larger than memory") from None
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ValueError(
            f"{images.dtype} of shape {images.shape}, but images are uint8 of shape "
            "(n, height, width, 1 or 3)"
        )
    return images


def write_images(path: Path, images: NDArray[np.uint8]) -> None:
    """Write images into a file, which appears whole or not at all."""
    import numpy as np

    def save(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, images, allow_pickle=False)

    write_atomically(path, save)
