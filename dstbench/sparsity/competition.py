"""Fixed masks for which the connections of all layers compete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import ClassVar, Literal

import torch
from pydantic import Field

from dstbench.errors import SparsityError
from dstbench.sparsity.selection import largest
from dstbench.sparsity.sparsifier import Sparsifier


class GlobalSparsifier(Sparsifier):
    """A fixed mask of the connections with the highest scores, over all layers at once.

    A method is a subclass that says what their scores are (:meth:`first_scores`, which is asked
    twice, and has to say the same), by the gradient of the first batch. How dense a layer is
    follows from the data; it may lose every connection that it has.
    """

    needs_initial_gradient: ClassVar[bool] = True

    class Settings(Sparsifier.Settings):
        distribution: Literal["global"] = Field(  # type: ignore[assignment]
            "global", description="the connections of all layers compete; there is no choice"
        )

    def layer_counts(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        if self.sparsity == 0:
            return {name: prod(shape) for name, shape in shapes.items()}
        if not self.layers:
            raise SparsityError(
                "which layer keeps how many connections follows from the first training batch: "
                f"{self.name} cannot tell before"
            )
        parts = [self.first_scores(layer, self._rng).flatten() for layer in self.layers]
        scores = torch.cat(parts)
        everything = torch.ones_like(scores, dtype=torch.bool)
        kept = largest(scores, everything, round((1 - self.sparsity) * len(scores)))
        return {
            layer.name: int(part.count_nonzero())
            for layer, part in zip(
                self.layers, torch.split(kept, [len(part) for part in parts]), strict=True
            )
        }
