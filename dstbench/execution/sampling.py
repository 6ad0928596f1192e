"""Samples of a trained cell, always from the noise of its seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dstbench.contracts import Model
from dstbench.kernels import fixed_weights
from dstbench.records import Record
from dstbench.seeds import derive


@dataclass(frozen=True)
class Trained:
    """A trained cell: its denoiser, and the model that samples from it."""

    record: Record
    model: Model
    denoiser: nn.Module
    masks: dict[str, Tensor]
    """Masks (bool) by parameter name; none of a dense cell."""


def draw_samples(
    model: Model,
    denoiser: nn.Module,
    seed: int,
    count: int,
    batch_size: int,
    noise: int = 0,
    **asked: Any,
) -> Sequence[Any] | Tensor:
    """Samples as items, from one of the noises of a cell's seed; ``asked`` is what its ``sample``
    takes beside that."""
    purpose = ("samples", noise) if noise else ("samples",)
    rng = torch.Generator().manual_seed(derive(seed, *purpose))
    denoiser.eval()
    with torch.no_grad(), fixed_weights():
        return model.sample(denoiser, count, batch_size, rng, **asked)
