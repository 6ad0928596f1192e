"""Top-KAST: the largest of all weights are active, those next to them move in reserve."""

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from dstbench import hookimpl
from dstbench.sparsity import DynamicSparsifier, Layer, Schedule, Sparsifier, largest


class TopKAST(DynamicSparsifier):
    """Let the largest weights of each layer be active; the next largest are trained in reserve.

    'Top-KAST: Top-K Always Sparse Training' (Jayakumar et al., NeurIPS 2020, arXiv 2106.03517,
    section 2). Every weight has a value, also while it is inactive, when it counts as zero in the
    network. Active are the density D = 1 − S of largest magnitude, chosen anew at every update; the
    next M, the reserve B∖A, are moved by their gradient too, and decay 1/D times as fast as the
    active ones, so that they stay where they are worth it. All others stay as they are.

    This is the closest form that masks allow, with which the optimizer trains active weights alone:
    a step of the reserve goes against its dense gradient, at the optimizer's learning rate, with
    the gradient's root mean square over the layer as its unit. For that the gradient of all weights
    is computed, and counted, at every step; the published method needs that of the D + M largest.
    """

    name = "top-kast"
    needs_dense_gradient = True

    class Settings(DynamicSparsifier.Settings):
        prune_rate: float = Field(1, ge=1, le=1, description="every weight is chosen anew")
        prune_schedule: Schedule = Field("constant", description="of no effect")
        stop_fraction: float = Field(
            1.0, ge=0, le=1, description="fraction of the training after which exploration stops"
        )
        reserve: float = Field(
            0.1, ge=0, le=1, description="fraction of a layer's weights that moves in reserve, M"
        )

    def __init__(self, sparsity: float, **settings: Any) -> None:
        super().__init__(sparsity, **settings)
        self.values: dict[str, Tensor] = {}
        """Values of all weights, by parameter name; those of active ones as of the last update."""
        self.reserves: dict[str, Tensor] = {}
        """Which connections are in reserve until the next update (bool), by parameter name."""

    def first_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        self.values[layer.name] = layer.weight.detach().clone()
        return layer.weight.abs()

    def observes_at(self, step: int) -> bool:
        return bool(step < self.settings.stop_fraction * self.total_steps)

    def observe(self, layer: Layer, step: int) -> None:
        values, gradient = self.values[layer.name], layer.dense_gradient
        if layer.name not in self.reserves:
            size = min(round(self.settings.reserve * values.numel()), values.numel() - layer.active)
            self.reserves[layer.name] = largest(values.abs(), ~layer.mask, size)
        optimizer = self.optimizer_settings(layer)
        rate, decay = float(optimizer["lr"]), float(optimizer.get("weight_decay", 0))
        unit = gradient.square().mean().sqrt().clamp(min=torch.finfo(gradient.dtype).tiny)
        step_of_all = gradient.div(unit).add_(values, alpha=decay / (1 - self.sparsity))
        values.sub_(step_of_all.mul_(self.reserves[layer.name]), alpha=rate)

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        values = self.values[layer.name]
        values.copy_(torch.where(layer.mask, layer.weight, values))
        self.reserves.pop(layer.name, None)
        return values.abs()

    def grown_values(self, layer: Layer) -> Tensor:
        return self.values[layer.name]

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"values": self.values, "reserves": self.reserves}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.values = self._in_their_layout(state["values"])
        self.reserves = self._in_their_layout(state["reserves"])

    def _in_their_layout(self, saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies, on the device and with the strides of the weights."""
        weights = {layer.name: layer.weight for layer in self.layers}
        return {
            name: torch.empty_like(weights[name], dtype=tensor.dtype).copy_(tensor)
            for name, tensor in saved.items()
        }


@hookimpl
def dstbench_sparsifiers() -> list[type[Sparsifier]]:
    return [TopKAST]
