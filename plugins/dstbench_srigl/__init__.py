"""SRigL: every output unit of a layer has the same number of inputs, or none."""

import math
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from dstbench import hookimpl
from dstbench.sparsity import DynamicSparsifier, Layer, Sparsifier, largest


class SRigL(DynamicSparsifier):
    """Constant fan-in: drop by magnitude in the layer, and fill each output unit up by gradient.

    'Dynamic Sparse Training with Structured Sparsity' (Lasby et al., ICLR 2024, arXiv 2305.02299,
    section 3.1). Output units lie along dimension 0 of a weight: units, output channels, and each
    gate's units of a recurrent layer. A connection is salient that RigL would keep, or grow. A unit
    with fewer salient ones than γ · k, where k is the fan-in that all units would have, is ablated:
    it loses all its inputs, and those left get more. An ablated unit comes back when it has enough.

    A layer's number of active weights is a multiple of its output units, near what the layer
    distribution gives it, and one for each unit at least, unless no layer has more; all together
    are at most as many as S asks for. It never changes: of the units that could be ablated, as many
    are as leave the others a whole number of inputs.
    """

    name = "srigl"
    needs_dense_gradient = True
    exact_sparsity = False

    class Settings(DynamicSparsifier.Settings):
        structure: Literal["unstructured"] = Field(
            "unstructured", description="a constant fan-in is its structure; there is no choice"
        )
        min_salient: float = Field(
            0.3,
            ge=0,
            le=1,
            description="fraction of its fan-in that has to be salient of an output unit's inputs, "
            "or it is ablated, γ; 0: none ever is",
        )

    def __init__(self, sparsity: float, **settings: Any) -> None:
        super().__init__(sparsity, **settings)
        self._units: dict[str, Tensor] = {}
        """Output units that have inputs after the update being made, by parameter name."""

    def layer_counts(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        wanted = super().layer_counts(shapes)
        units = {name: shape[0] for name, shape in shapes.items()}
        counts = {name: max(wanted[name] // units[name], 1) * units[name] for name in wanted}
        missing = sum(wanted.values()) - sum(counts.values())
        while missing < 0:  # one input each was too much
            name = max(
                filter(counts.get, counts),
                key=lambda name: (
                    counts[name] > units[name],
                    (counts[name] - wanted[name]) / units[name],
                ),
            )
            counts[name] -= units[name]
            missing += units[name]
        while fitting := [
            name for name in counts if units[name] <= missing and counts[name] < prod(shapes[name])
        ]:
            name = max(fitting, key=lambda name: (wanted[name] - counts[name]) / units[name])
            counts[name] += units[name]
            missing -= units[name]
        return counts

    def choose_kept(self, layer: Layer, scores: Tensor, count: int, prune_rate: float) -> Tensor:
        dropped = round(prune_rate * count)
        units = self._units_with_inputs(layer, scores, dropped)
        self._units[layer.name] = units
        among = layer.mask.logical_and(_in_rows(units, scores))
        among = _highest_in_rows(scores.masked_fill(~among, -1), fan_in(count, units)) & among
        return largest(scores, among, min(count - dropped, int(among.count_nonzero())))

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return layer.dense_gradient.abs_()

    def select_mask(self, layer: Layer, kept: Tensor, scores: Tensor) -> Tensor:
        """The mask with as many inputs of each unit: ``kept``, then the highest ``scores``."""
        units = self._units.get(layer.name, torch.ones(len(kept), dtype=torch.bool).to(kept.device))
        ranked = scores.float().masked_fill(kept, math.inf)
        mask = _highest_in_rows(ranked, fan_in(layer.active, units))
        return mask.logical_and_(_in_rows(units, kept))

    def _units_with_inputs(self, layer: Layer, scores: Tensor, dropped: int) -> Tensor:
        """The units (bool) that are not ablated in an update by which so many connections of the
        layer are dropped; ``scores`` are their magnitudes."""
        size, inputs = len(layer.mask), layer.mask[0].numel()
        if layer is self.layers[-1]:  # the network's outputs
            return layer.mask.new_ones(size)
        kept = largest(scores, layer.mask, layer.active - dropped)
        salient = largest(layer.dense_gradient.abs(), ~kept, dropped).logical_or_(kept)
        counts = salient.flatten(1).sum(1)
        enough = int((counts >= self.settings.min_salient * layer.active / size).count_nonzero())
        return largest(
            counts,
            torch.ones_like(counts, dtype=torch.bool),
            fewest(layer.active, enough, size, inputs),
        )


def fan_in(count: int, units: Tensor) -> int:
    """Number of inputs of each of the ``units`` (bool) that share ``count`` evenly."""
    return count // max(int(units.count_nonzero()), 1)


def fewest(count: int, enough: int, units: int, inputs: int) -> int:
    """The least number of units, from ``enough`` on, that can share ``count`` connections evenly,
    none having more than ``inputs``; ``units``, all that there are, can."""
    return next(
        number
        for number in range(max(enough, 1), units + 1)
        if number == units or (count % number == 0 and count <= number * inputs)
    )


def _in_rows(units: Tensor, like: Tensor) -> Tensor:
    """Units as a mask of connections, which broadcasts to the shape of ``like``."""
    return units.view(-1, *(1 for _ in like.shape[1:]))


def _highest_in_rows(scores: Tensor, count: int) -> Tensor:
    """The ``count`` highest scores of each output unit, as a mask; ties go to the lower index."""
    order = scores.flatten(1).argsort(dim=1, descending=True, stable=True)
    mask = torch.zeros_like(order, dtype=torch.bool)
    return mask.scatter_(1, order[:, :count], True).view(scores.shape)


@hookimpl
def dstbench_sparsifiers() -> list[type[Sparsifier]]:
    return [SRigL]
