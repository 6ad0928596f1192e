"""The nearest training image of each sample, against memorisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dstbench.contracts import Features
from dstbench.records import Nearest

if TYPE_CHECKING:
    from torch import Tensor

AT_MOST = 1000
"""Samples, and training images, whose nearest neighbours are looked for: the first ones."""


def nearest(samples: Features, training: Features) -> tuple[Tensor, Nearest]:
    """Indices (n,) of the training images nearest to the first samples, and how near they are.

    Distances are Euclidean, between features.
    """
    import torch

    ours, theirs = samples.features[:AT_MOST], training.features
    distances, indices = torch.cdist(ours, theirs).min(dim=1)
    some = theirs[:AT_MOST]
    among = torch.cdist(some, theirs)
    among[torch.arange(len(some)), torch.arange(len(some))] = torch.inf
    usual = among.min(dim=1).values.median()
    return indices, Nearest(
        samples=float(distances.median()),
        training=float(usual),
        closer=float((distances < usual).float().mean()),
        count=max(len(ours), len(some)),
    )
