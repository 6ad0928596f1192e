"""GraNet: gradual pruning, with connections regenerated at each pruning."""

import torch
from dstbench_gmp import GMP
from pydantic import Field
from torch import Tensor

from dstbench import hookimpl
from dstbench.sparsity import Layer, Sparsifier


class GraNet(GMP):
    """Prune gradually until S, and regrow at each update a part of what is left by gradient.

    'Sparse Training via Boosting Pruning Plasticity with Neuroregeneration' (Liu et al., NeurIPS
    2021, arXiv 2106.10404). An update prunes the smallest weights down to the density of gmp's
    cubic schedule, which starts here from s_i = 0.5; of those left, the smallest are dropped too,
    and as many connections grown where the dense gradient is largest. Once S is reached, this is
    RigL.

    The published one prunes over all layers at once. Here each layer has its part by the layer
    distribution, as with every other method, so that rows of one S have the same counts.
    """

    name = "granet"
    needs_dense_gradient = True

    class Settings(GMP.Settings):
        prune_rate: float = Field(
            0.5, ge=0, le=1, description="fraction of a layer's active weights that an update drops"
        )
        initial_sparsity: float = Field(0.5, ge=0, lt=1, description="s_i; but never more than S")
        end_fraction: float = Field(
            0.5, gt=0, le=1, description="fraction of the training after which pruning ends"
        )
        stop_fraction: float = Field(
            0.75, ge=0, le=1, description="fraction of the training after which exploration stops"
        )

    def prunes_at(self, step: int) -> bool:
        return super().prunes_at(step) and step <= self.settings.end_fraction * self.total_steps

    def updates_at(self, step: int) -> bool:
        return super().prunes_at(step)

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return layer.dense_gradient.abs_()


@hookimpl
def dstbench_sparsifiers() -> list[type[Sparsifier]]:
    return [GraNet]
