"""N:M sparsity: N of every M consecutive inputs of a unit are connected."""

import math
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from dstbench import hookimpl
from dstbench.errors import SparsityError
from dstbench.sparsity import DynamicSparsifier, Layer, Sparsifier


class NM(DynamicSparsifier):
    """Keep N of every M consecutive inputs; drop by magnitude, grow by dense gradient in the group.

    Groups lie along dimension 1 of a weight, the input channels of linear, convolution and
    recurrent layers. N = (1 − S) · M, so that S = 0.5 with m = 4 is the 2:4 that some GPUs are
    built for ('Accelerating Sparse Deep Neural Networks', Mishra et al. 2021, arXiv 2104.08378).
    Layers whose inputs do not fill groups stay dense.

    Weights are dropped over the whole layer, and each group is filled up again where its gradient
    is largest, as in RigL ('Rigging the Lottery', Evci et al., ICML 2020, arXiv 1911.11134). The
    usual way to train N:M masks is another, SR-STE ('Learning N:M Fine-grained Structured Sparse
    Neural Networks From Scratch', Zhou et al., ICLR 2021, arXiv 2102.04010); but that keeps dense
    weights and updates all of them at every step, so it is not sparse-to-sparse.
    """

    name = "nm"
    needs_dense_gradient = True
    exact_sparsity = False

    class Settings(DynamicSparsifier.Settings):
        distribution: Literal["uniform"] = Field(
            "uniform", description="N:M in all layers whose inputs fill groups; there is no choice"
        )
        m: int = Field(4, ge=2, description="inputs in a group, of which (1 − S) · m are connected")

    def __init__(self, sparsity: float, **settings: Any) -> None:
        super().__init__(sparsity, **settings)
        m: int = self.settings.m
        self.n = round((1 - sparsity) * m)
        """Connections in each group."""
        if self.n == 0 or not math.isclose(self.n, (1 - sparsity) * m):
            possible = ", ".join(f"{1 - k / m:.4g}" for k in range(m, 0, -1))
            raise SparsityError(
                f"S = {sparsity:g} leaves no whole number of {m} inputs; with m = {m}, "
                f"S may be {possible}"
            )

    def layer_counts(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        n, m = self.n, self.settings.m
        return {
            name: prod(shape) if shape[1] % m else prod(shape) // m * n
            for name, shape in shapes.items()
        }

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return layer.dense_gradient.abs_()

    def select_mask(self, layer: Layer, kept: Tensor, scores: Tensor) -> Tensor:
        """The mask with ``n`` connections in each group: ``kept``, then the highest ``scores``."""
        ranked = scores.float().masked_fill(kept, math.inf).movedim(1, -1)
        groups = ranked.reshape(*ranked.shape[:-1], -1, self.settings.m)
        order = groups.argsort(dim=-1, descending=True, stable=True)
        mask = torch.zeros_like(groups, dtype=torch.bool)
        return mask.scatter_(-1, order[..., : self.n], True).flatten(-2).movedim(-1, 1)


@hookimpl
def dstbench_sparsifiers() -> list[type[Sparsifier]]:
    return [NM]
