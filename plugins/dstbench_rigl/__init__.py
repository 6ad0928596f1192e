"""RigL: grow where the gradient is largest (RigL-DM, arXiv 2504.21380)."""

import torch
from torch import Tensor

from dstbench import hookimpl
from dstbench.sparsity import DynamicSparsifier, Layer, Sparsifier


class RigL(DynamicSparsifier):
    """Drop by magnitude, grow where the dense gradient is largest (Evci et al. 2020)."""

    name = "rigl"
    needs_dense_gradient = True

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return layer.dense_gradient.abs_()


@hookimpl
def dstbench_sparsifiers() -> list[type[Sparsifier]]:
    return [RigL]
