"""Sparse Networks from Scratch: connections follow the momentum, in a layer and between layers."""

from collections.abc import Mapping
from fractions import Fraction
from math import floor
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from dstbench import hookimpl
from dstbench.sparsity import DynamicSparsifier, Layer, Sparsifier, largest


class SNFS(DynamicSparsifier):
    """Drop by magnitude, grow where the momentum is largest, in layers where it is large.

    'Sparse Networks from Scratch: Faster Training without Losing Performance' (Dettmers &
    Zettlemoyer 2019, arXiv 1907.04840, section 3 and Algorithm 1). At an update each layer gives up
    a part of its connections, and all that were given up are shared out in proportion to the mean
    |momentum| of the layers' active weights; their total stays.

    The momentum is an exponential average of the dense gradient, whatever the optimizer: each step
    that adds to it costs the gradient of all weights, a third of what a step of dense training
    does.
    """

    name = "snfs"
    needs_dense_gradient = True

    class Settings(DynamicSparsifier.Settings):
        momentum: float = Field(
            0.9, ge=0, lt=1, description="part of the momentum that one more gradient leaves of it"
        )
        momentum_frequency: int = Field(
            1,
            ge=1,
            description="optimizer steps between two gradients that the momentum is made of, each "
            "of which is computed for all weights; 1: every step, as published",
        )

    def __init__(self, sparsity: float, **settings: Any) -> None:
        super().__init__(sparsity, **settings)
        self.momenta: dict[str, Tensor] = {}
        """Average of the dense gradient, in the weight's shape, by parameter name."""

    def observes_at(self, step: int) -> bool:
        regular = step % self.settings.momentum_frequency == 0
        return self.updates_at(step) or (
            regular and step < self.settings.stop_fraction * self.total_steps
        )

    def observe(self, layer: Layer, step: int) -> None:
        momentum = self.momenta.setdefault(layer.name, torch.zeros_like(layer.weight))
        momentum.lerp_(layer.dense_gradient, 1 - self.settings.momentum)

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return self.momenta[layer.name].abs()

    def choose_kept(self, layer: Layer, scores: Tensor, count: int, prune_rate: float) -> Tensor:
        """All but the layer's given up part, also where it gets less than that back."""
        left = layer.active - round(prune_rate * layer.active)
        return largest(scores, layer.mask, min(left, count))

    def counts_after_update(self, step: int) -> Mapping[str, int]:
        counts = {layer.name: layer.active for layer in self.layers}
        moving = [layer for layer in self.layers if layer.has_dense_gradient]
        rate = self.prune_rate_at(step)
        left = {layer.name: layer.active - round(rate * layer.active) for layer in moving}
        room = {layer.name: layer.mask.numel() - left[layer.name] for layer in moving}
        means = {layer.name: self._mean_momentum(layer) for layer in moving}
        given_up = sum(counts[name] - left[name] for name in left)
        if not any(means.values()):
            return counts
        shares = share_out(given_up, means, room)
        return counts | {name: left[name] + shares[name] for name in left}

    def _mean_momentum(self, layer: Layer) -> float:
        """Mean |momentum| of the layer's active weights."""
        total = (self.momenta[layer.name].abs() * layer.mask).sum(dtype=torch.float64)
        return total.item() / max(layer.active, 1)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"momenta": self.momenta}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        weights = {layer.name: layer.weight for layer in self.layers}
        self.momenta = {
            name: torch.empty_like(weights[name]).copy_(momentum)
            for name, momentum in state["momenta"].items()
        }


def share_out(total: int, weights: Mapping[str, float], room: Mapping[str, int]) -> dict[str, int]:
    """Whole numbers that sum to ``total``, in proportion to ``weights``, none above its ``room``.

    What is too much for one is shared out among the others; those of weight 0 come last. Parts are
    rounded down, and what is missing goes to the largest remainders.
    """
    tiny = Fraction(max(weights.values())) / 10**12
    weight = {name: max(Fraction(value), tiny) for name, value in weights.items()}
    full: dict[str, Fraction] = {}
    while True:
        open_ = [name for name in weight if name not in full]
        scale = (total - sum(full.values())) / sum(weight[name] for name in open_) if open_ else 0
        parts = full | {name: scale * weight[name] for name in open_}
        over = {name: Fraction(room[name]) for name in open_ if parts[name] > room[name]}
        if not over:
            break
        full |= over
    shares = {name: floor(parts[name]) for name in weight}
    missing = total - sum(shares.values())
    by_remainder = sorted(weight, key=lambda name: shares[name] - parts[name])
    return {name: shares[name] + (name in by_remainder[:missing]) for name in weight}


@hookimpl
def dstbench_sparsifiers() -> list[type[Sparsifier]]:
    return [SNFS]
