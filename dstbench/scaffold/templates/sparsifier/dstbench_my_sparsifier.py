"""my-sparsifier, a sparsifier for dstbench."""

import torch
from dstbench import hookimpl
from dstbench.sparsity import DynamicSparsifier, Layer, Sparsifier
from pydantic import Field
from torch import Tensor


class MySparsifier(DynamicSparsifier):
    """Drop by magnitude; grow at random, rather at units that have few connections.

    CHANGE THIS: say what yours does and where it comes from. `dstbench plugins` prints the first
    line.
    """

    name = "my-sparsifier"

    # CHANGE THIS to True if growth_scores needs layer.dense_gradient, the gradient of all
    # connections, inactive ones too. The steps that compute it are counted as more FLOPs.
    needs_dense_gradient = False

    class Settings(DynamicSparsifier.Settings):
        # CHANGE THIS: what a benchmark may set under [sparsifiers.my-sparsifier], besides what
        # all dynamic sparsifiers have (prune_rate, exploration_frequency, …).
        strength: float = Field(
            1.0, ge=0, description="how much rather at units with few connections; 0: anywhere"
        )

    # To change which connections are dropped, define survival_scores(self, layer): those with the
    # lowest are, and by default they are the weights' magnitudes.

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        # CHANGE THIS: one score for each connection, in the shape of layer.weight, on its device;
        # those with the highest are grown. layer.mask is True where a connection is active. All
        # that is random comes from rng, or runs could not be repeated.
        noise = torch.rand(layer.mask.shape, generator=rng, device=rng.device)
        room = 1 - layer.mask.flatten(1).float().mean(1)  # of each output unit, 0 to 1
        preference: Tensor = room**self.settings.strength
        return noise * preference.view(-1, *[1] * (noise.ndim - 1))


@hookimpl
def dstbench_sparsifiers() -> list[type[Sparsifier]]:
    return [MySparsifier]
