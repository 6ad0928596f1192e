"""Tiny sketches, and what the tests of ChiroDiff share."""

import math
from typing import Any

import torch
from dstbench_chirodiff.model import ChiroDiff
from dstbench_chirodiff.settings import ChiroDiffSettings
from torch import Tensor

from dstbench.cache import Cache
from dstbench.contracts import Data, Workspace

CPU = torch.device("cpu")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def circle(points: int) -> Tensor:
    """One stroke around, from the origin back to it."""
    angle = torch.linspace(0, 2 * math.pi, points)
    sketch = torch.stack([5 * angle.cos() - 5, 5 * angle.sin(), torch.zeros(points)], dim=1)
    sketch[-1, 2] = 1
    return sketch


def zigzag(points: int) -> Tensor:
    """Two strokes, of which the second goes on where the first ends."""
    step = torch.arange(points)
    sketch = torch.stack([step * 10 / points, step % 2, torch.zeros(points)], dim=1)
    sketch[0] = 0
    sketch[[points // 2, -1], 2] = 1
    return sketch


def tiny_data(lengths: range = range(6, 26)) -> Data:
    sketches = [(circle, zigzag)[n % 2](n) for n in lengths]
    return Data(sketches, sketches[:3], f"tiny {lengths}", lambda items: torch.zeros(len(items)))


def tiny_model(cache: Cache, data: Data | None = None, **settings: Any) -> ChiroDiff:
    defaults = {"layers": 2, "units": 8, "sampling_steps": 5}
    return ChiroDiff(
        ChiroDiffSettings(**{**defaults, **settings}), data or tiny_data(), Workspace(CPU, cache)
    )
