"""MagRan: grow at random (MagRan-DM, arXiv 2504.21380)."""

import torch
from torch import Tensor

from dstbench import hookimpl
from dstbench.sparsity import DynamicSparsifier, Layer, Sparsifier, random_scores


class MagRan(DynamicSparsifier):
    """Drop by magnitude, grow at random (the SET of Mocanu et al. 2018)."""

    name = "magran"

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return random_scores(layer, rng)


@hookimpl
def dstbench_sparsifiers() -> list[type[Sparsifier]]:
    return [MagRan]
