"""From a benchmark to its cells: the cross product of the axes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from dstbench.cache import digest

DENSE = "dense"
"""The name of the reference: the same training without a sparsifier."""


class Cell(BaseModel):
    """One training run with every setting resolved.

    All fields change the result, and the id is a hash of all of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    dataset: str
    sparsifier: str
    sparsity: float
    seed: int
    model_settings: dict[str, Any] = {}
    dataset_settings: dict[str, Any] = {}
    sparsifier_settings: dict[str, Any] = {}
    extractor_settings: dict[str, Any] = {}
    training: dict[str, Any] = {}
    evaluation: dict[str, Any] = {}

    @property
    def task(self) -> str:
        return f"{self.model} on {self.dataset}"

    @property
    def id(self) -> str:
        readable = f"{self.model}-{self.dataset}-{self.sparsifier}-{self.sparsity:g}-{self.seed}"
        return f"{readable}-{digest(self.model_dump(mode='json'))[:12]}"
