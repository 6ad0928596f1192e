"""The images that are kept of a cell."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dstbench.contracts import Data, Split
from dstbench.images import to_picture
from dstbench.store.files import write_atomically
from dstbench.store.folder import CellFolder

KEPT_SAMPLES = 64
"""Sample images kept of each cell, for its grid and the leaderboard's sheet."""
KEPT_REALS = 12
"""Real images kept beside them, for the sheet: as many as it has columns."""


def keep_samples(folder: CellFolder, images: Tensor) -> None:
    """Keep sample images (N, C, H, W), and a picture of all of them."""
    folder.write_images(folder.samples, last_channel(images))
    grid = _grid(images)
    write_atomically(folder.sheet, lambda path: grid.save(path, format="png"))


def keep_reals(folder: CellFolder, data: Data, split: Split) -> None:
    """Keep a few real images of a split, evenly spaced: its beginning may be all of one class."""
    items = data.split(split)
    count = min(KEPT_REALS, len(items))
    images = data.to_images([items[i * len(items) // count] for i in range(count)])
    folder.write_images(folder.reals, last_channel(images))


def last_channel(images: Tensor) -> NDArray[np.uint8]:
    """Images (N, C, H, W) as (N, H, W, C)."""
    array: NDArray[np.uint8] = images.permute(0, 2, 3, 1).contiguous().numpy()
    return array


def _grid(images: Tensor) -> Image.Image:
    """Images (N, C, H, W) side by side, in as many columns as rows, or one more."""
    columns = math.ceil(math.sqrt(len(images)))
    height, width = images.shape[2:]
    grid = Image.new("RGB", (columns * width, math.ceil(len(images) / columns) * height))
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        grid.paste(to_picture(image), (column * width, row * height))
    return grid
