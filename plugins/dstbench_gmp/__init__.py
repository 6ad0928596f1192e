"""Gradual magnitude pruning: a dense network that becomes sparse while it is trained."""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from dstbench import hookimpl
from dstbench.errors import SparsityError
from dstbench.sparsity import DynamicSparsifier, Layer, Sparsifier


class GMP(DynamicSparsifier):
    """Prune the smallest weights of a dense network, step by step until S, and grow none.

    'To prune, or not to prune' (Zhu & Gupta 2017, arXiv 1710.01878): at the n prunings between
    t0 and t0 + n·Δt, the sparsity is s_t = S + (s_i − S)(1 − (t − t0) / (n·Δt))³. The published
    one has the same sparsity in all layers, which is distribution = "uniform" here.
    """

    name = "gmp"

    class Settings(DynamicSparsifier.Settings):
        prune_rate: float = Field(0, ge=0, le=0, description="no connection is replaced by another")
        initial_sparsity: float = Field(0.0, ge=0, lt=1, description="s_i; but never more than S")
        begin_fraction: float = Field(
            0.0, ge=0, lt=1, description="fraction of the training before which nothing is pruned"
        )
        stop_fraction: float = Field(
            0.75, ge=0, le=1, description="fraction of the training after which pruning ends"
        )
        exploration_frequency: int = Field(100, ge=1, description="steps between two prunings, Δt")

    def __init__(self, sparsity: float, **settings: Any) -> None:
        super().__init__(sparsity, **settings)
        self.begin: float = self.settings.begin_fraction * self.total_steps
        self.end = next(filter(self.updates_at, range(self.total_steps, 0, -1)), 0)
        if not self.end and sparsity > self.settings.initial_sparsity:
            raise SparsityError(f"none of {self.total_steps} steps is one to prune at: "
                                "a lower exploration_frequency makes it one")  # fmt: skip

    def updates_at(self, step: int) -> bool:
        return step > self.begin and super().updates_at(step)

    def density_at(self, step: int) -> float:
        initial: float = min(self.settings.initial_sparsity, self.sparsity)
        left = min(1.0, (self.end - step) / (self.end - self.begin)) if step < self.end else 0.0
        return 1 - (self.sparsity + (initial - self.sparsity) * left**3)

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return layer.weight.abs()  # asked for where rounding gives a layer one connection more


@hookimpl
def dstbench_sparsifiers() -> list[type[Sparsifier]]:
    return [GMP]
