"""Small synthetic data of the kinds that models take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dstbench.contracts import Data

TRAIN, VALIDATION = 16, 4
"""Numbers of items in the two splits."""


def images(shape: tuple[int, int, int]) -> Data:
    """Images of shape (C, H, W): slopes from one shade to another, in random directions; their
    labels say nothing about them."""
    channels, height, width = shape
    rng = torch.Generator().manual_seed(0)
    rows, columns = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)
    angles, shades = torch.rand(2, TRAIN + VALIDATION, channels, 1, 1, generator=rng)
    slopes = (6.28 * angles).cos() * rows + (6.28 * angles).sin() * columns
    pixels = (64 + 128 * shades + 40 * slopes).clamp(0, 255).to(torch.uint8)
    return Data(
        train=[image.clone() for image in pixels[:TRAIN]],
        validation=[image.clone() for image in pixels[TRAIN:]],
        fingerprint=f"synthetic images {shape}",
        to_images=_stack,
        labels={"train": [n % 3 for n in range(TRAIN)], "validation": [0] * VALIDATION},
    )


def sketches() -> Data:
    """Sketches of two strokes, of 6 to 12 points: random walks from the origin."""
    items = [_walk(6 + number % 7, number) for number in range(TRAIN + VALIDATION)]
    return Data(
        train=items[:TRAIN],
        validation=items[TRAIN:],
        fingerprint="synthetic sketches",
        to_images=_dotted,
    )


CANDIDATES: dict[str, list[Callable[[], Data]]] = {
    "images": [
        partial(images, (channels, size, size)) for size in (8, 16, 32, 64) for channels in (1, 3)
    ],
    "sketches": [sketches],
}
"""Functions, by kind of data, that make what a model is tried with, in this order, until it takes
some."""


def _walk(points: int, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    steps = torch.randn(points, 2, generator=rng)
    steps[0] = 0
    pens = torch.zeros(points, 1)
    pens[[points // 2, -1]] = 1
    return torch.cat([steps.cumsum(0), pens], dim=1)


def _stack(items: Sequence[Any] | Tensor) -> Tensor:
    return torch.stack(list(items))


def _dotted(items: Sequence[Any] | Tensor) -> Tensor:
    """Pictures (N, 1, 16, 16) of the points of sketches."""
    pictures = torch.zeros(len(items), 1, 16, 16, dtype=torch.uint8)
    for picture, item in zip(pictures, items, strict=True):
        columns, rows = (8 + item[:, :2]).clamp(0, 15).long().T
        picture[0, rows, columns] = 255
    return pictures
