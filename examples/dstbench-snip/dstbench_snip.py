"""SNIP: prune by connection sensitivity before the first step."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from dstbench import hookimpl
from dstbench.errors import SparsityError
from dstbench.sparsity import Layer, Sparsifier, largest


class Snip(Sparsifier):
    """Keep the connections that the loss of one batch is most sensitive to; never change them.

    The sensitivity of a connection is |g · w|: the gradient of the loss times the weight, before
    the first step. All connections compete, so that layers' densities follow from the data, and a
    layer may lose every connection it has ('SNIP: Single-shot Network Pruning based on Connection
    Sensitivity', Lee, Ajanthan and Torr, ICLR 2019, arXiv 1810.02340, algorithm 1).
    """

    name = "snip"
    needs_initial_gradient = True

    class Settings(Sparsifier.Settings):
        distribution: Literal["global"] = Field(  # type: ignore[assignment]
            "global", description="the connections of all layers compete; there is no choice"
        )

    def first_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return _sensitivity(layer)

    def layer_counts(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        if self.sparsity == 0:
            return {name: prod(shape) for name, shape in shapes.items()}
        if not self.layers:
            raise SparsityError(
                "which layer keeps how many connections follows from the first training batch: "
                "snip cannot tell before"
            )
        scores = torch.cat([_sensitivity(layer).flatten() for layer in self.layers])
        everything = torch.ones_like(scores, dtype=torch.bool)
        kept = largest(scores, everything, round((1 - self.sparsity) * len(scores)))
        parts = torch.split(kept, [layer.weight.numel() for layer in self.layers])
        return {
            layer.name: int(part.count_nonzero())
            for layer, part in zip(self.layers, parts, strict=True)
        }


def _sensitivity(layer: Layer) -> Tensor:
    return (layer.dense_gradient * layer.weight).abs()


@hookimpl
def dstbench_sparsifiers() -> list[type[Sparsifier]]:
    return [Snip]
