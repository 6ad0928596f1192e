"""SRigL: every output unit of a layer has the same number of inputs."""

import math
from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor

from dstbench import hookimpl
from dstbench.sparsity import DynamicSparsifier, Layer, Sparsifier


class SRigL(DynamicSparsifier):
    """Constant fan-in: drop by magnitude in the layer, and fill each output unit up by gradient.

    'Dynamic Sparse Training with Structured Sparsity' (Lasby et al., ICLR 2024, arXiv 2305.02299),
    without its ablation of neurons. Output units lie along dimension 0 of a weight: units, output
    channels, and each gate's units of a recurrent layer.

    The number of active weights of a layer is a multiple of its output units, near what the layer
    distribution gives it; all together are at most as many as S asks for.
    """

    name = "srigl"
    needs_dense_gradient = True
    exact_sparsity = False

    def layer_counts(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        wanted = super().layer_counts(shapes)
        units = {name: shape[0] for name, shape in shapes.items()}
        counts = {name: wanted[name] // units[name] * units[name] for name in wanted}
        missing = sum(wanted.values()) - sum(counts.values())
        while fitting := [
            name for name in counts if units[name] <= missing and counts[name] < prod(shapes[name])
        ]:
            name = max(fitting, key=lambda name: (wanted[name] - counts[name]) / units[name])
            counts[name] += units[name]
            missing -= units[name]
        return counts

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return layer.dense_gradient.abs_()

    def select_mask(self, layer: Layer, kept: Tensor, scores: Tensor) -> Tensor:
        """The mask with as many inputs of each unit: ``kept``, then the highest ``scores``."""
        ranked = scores.float().masked_fill(kept, math.inf).flatten(1)
        order = ranked.argsort(dim=1, descending=True, stable=True)
        mask = torch.zeros_like(ranked, dtype=torch.bool)
        return mask.scatter_(1, order[:, : layer.active // len(mask)], True).view(kept.shape)


@hookimpl
def dstbench_sparsifiers() -> list[type[Sparsifier]]:
    return [SRigL]
