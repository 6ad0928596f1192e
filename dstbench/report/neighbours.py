"""Samples beside their nearest training images, against memorisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dstbench.report.leaderboard import Table
from dstbench.report.sheet import COLUMNS, sample_sheet

CAPTION = "each sample, and right of it the training image whose features are nearest"


def neighbour_sheet(
    tables: Sequence[Table],
    samples: Mapping[str, NDArray[np.uint8]],
    neighbours: Mapping[str, NDArray[np.uint8]],
) -> Image.Image | None:
    """Samples of each table's first seed in pairs with training images, or ``None`` if there are
    none.

    Both hold uint8 images (n, H, W, C), C = 1 or 3, by cell id; the i-th neighbour is the i-th
    sample's.
    """
    pairs = {
        cell: alternating(samples[cell], near)
        for cell, near in neighbours.items()
        if cell in samples and samples[cell].shape[1:] == near.shape[1:]
    }
    return sample_sheet(tables, pairs, {}, CAPTION)


def alternating(ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The first of ours, the first of theirs, the second of ours, …"""
    count = min(len(ours), len(theirs), COLUMNS // 2)
    pairs = np.stack([ours[:count], theirs[:count]], axis=1)
    return pairs.reshape(2 * count, *ours.shape[1:])
