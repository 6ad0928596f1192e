"""GraNet: gradual pruning, with connections regenerated at each pruning."""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from dstbench import hookimpl
from dstbench.errors import SparsityError
from dstbench.sparsity import DynamicSparsifier, Layer, Sparsifier


class GraNet(DynamicSparsifier):
    """Prune gradually until S, and regrow at each update a part of what is left by gradient.

    'Sparse Training via Boosting Pruning Plasticity with Neuroregeneration' (Liu et al., NeurIPS
    2021, arXiv 2106.10404). An update at step t, of the n until pruning ends, prunes the smallest
    weights down to the sparsity S + (s_i − S)(1 − t / (n·Δt))³; of those left, the smallest are
    dropped, and as many connections grown where the dense gradient is largest. Once S is reached,
    this is RigL.

    The published one prunes over all layers at once. Here each layer has its part by the layer
    distribution, as with every other method, so that rows of one S have the same counts.
    """

    name = "granet"
    needs_dense_gradient = True

    class Settings(DynamicSparsifier.Settings):
        initial_sparsity: float = Field(0.5, ge=0, lt=1, description="s_i; but never more than S")
        end_fraction: float = Field(
            0.5, gt=0, le=1, description="fraction of the training after which pruning ends"
        )

    def __init__(self, sparsity: float, **settings: Any) -> None:
        super().__init__(sparsity, **settings)
        steps = range(int(self.settings.end_fraction * self.total_steps), 0, -1)
        self.end = next(filter(self.updates_at, steps), 0)
        """Step of the last pruning."""
        if not self.end and sparsity > self.settings.initial_sparsity:
            raise SparsityError(
                f"none of the first {len(steps)} of {self.total_steps} steps is one to prune at: a "
                "lower exploration_frequency, or higher stop_fraction, makes it one"
            )

    def density_at(self, step: int) -> float:
        initial: float = min(self.settings.initial_sparsity, self.sparsity)
        left = 1 - step / self.end if step < self.end else 0.0
        return 1 - (self.sparsity + (initial - self.sparsity) * left**3)

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return layer.dense_gradient.abs_()


@hookimpl
def dstbench_sparsifiers() -> list[type[Sparsifier]]:
    return [GraNet]
