"""SET: sparse evolutionary training, as it was first published."""

import torch
from pydantic import Field
from torch import Tensor

from dstbench import hookimpl
from dstbench.sparsity import (
    DynamicSparsifier,
    Layer,
    Schedule,
    Sparsifier,
    largest,
    random_scores,
)


class SET(DynamicSparsifier):
    """Drop a fixed part of the weights nearest to zero, of either sign; grow at random.

    'Scalable training of artificial neural networks with adaptive sparse connectivity inspired by
    network science' (Mocanu et al., Nature Communications 2018, arXiv 1707.04780, Algorithm 1): of
    a layer's positive weights the fraction ζ that is smallest is dropped, and of its negative ones
    that which is largest, at every update until the end of the training. MagRan, by contrast, drops
    by magnitude whatever the sign, and less and less until exploration stops.
    """

    name = "set"

    class Settings(DynamicSparsifier.Settings):
        prune_rate: float = Field(
            0.3, ge=0, le=1, description="fraction of a layer's positive, and of its negative "
            "weights that an update drops, ζ"
        )  # fmt: skip
        prune_schedule: Schedule = Field("constant", description="how the prune rate falls")
        stop_fraction: float = Field(
            1.0, ge=0, le=1, description="fraction of the training after which exploration stops"
        )

    def choose_kept(self, layer: Layer, scores: Tensor, count: int, prune_rate: float) -> Tensor:
        kept = torch.zeros_like(layer.mask)
        for side in (layer.weight < 0, layer.weight >= 0):
            among = side.logical_and_(layer.mask)
            number = int(among.count_nonzero())
            kept.logical_or_(largest(scores, among, number - round(prune_rate * number)))
        return kept

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return random_scores(layer, rng)


@hookimpl
def dstbench_sparsifiers() -> list[type[Sparsifier]]:
    return [SET]
