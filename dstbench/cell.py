"""A cell: one training run of a grid, with every setting resolved."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from dstbench.cache import canonical, digest
from dstbench.settings import EvaluationSettings, TrainingSettings

DENSE = "dense"
"""The name of the reference: the same training without a sparsifier."""

SMALL_DENSE = "small-dense"
"""The name of the baseline at equal parameters: the same training of a narrower dense network, of
about as many parameters as a sparse one has active."""

RESERVED = {
    DENSE: "the reference",
    SMALL_DENSE: "the narrower dense network",
}
"""Names that stand among a grid's sparsifiers and are none's, and what they are of."""

_WITHOUT_INFLUENCE = {
    "training": {"log_every", "checkpoint_every", "checkpoint_minutes"},
    "evaluation": {"also", "batch_size", "resamples"},
}


def flatten(tables: Mapping[str, Any], separator: str) -> dict[str, Any]:
    """Values of nested tables, by their keys in one."""
    flat: dict[str, Any] = {}
    for key, value in tables.items():
        if isinstance(value, Mapping):
            below = flatten(value, separator)
            flat |= {f"{key}{separator}{name}": each for name, each in below.items()}
        else:
            flat[key] = value
    return flat


class Cell(BaseModel):
    """One training run with every setting resolved."""

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
    versions: dict[str, str] = {}
    """Distribution and version of each plugin that makes the cell, by its kind, such as
    ``{"model": "dstbench 0.1.0"}``; empty where they are not known."""

    @property
    def training_settings(self) -> TrainingSettings:
        """``training``, validated."""
        return TrainingSettings(**self.training)

    @property
    def evaluation_settings(self) -> EvaluationSettings:
        """``evaluation``, validated."""
        return EvaluationSettings(**self.evaluation)

    @property
    def task(self) -> str:
        return f"{self.model} on {self.dataset}"

    @property
    def identity(self) -> dict[str, Any]:
        """All that determines the result: versions of plugins, and every setting but how often a
        run writes something down, how many images it samples and scores at a time, and in which
        other ways."""
        identity = {name: getattr(self, name) for name in type(self).model_fields}
        for name, without in _WITHOUT_INFLUENCE.items():
            identity[name] = {k: v for k, v in identity[name].items() if k not in without}
        if not self.versions:
            del identity["versions"]
        return identity

    @property
    def conditions(self) -> dict[str, Any]:
        """What is in :attr:`identity` but for what a table of the leaderboard compares: cells of
        equal conditions differ in sparsifier, sparsity and seed alone."""
        compared = {"sparsifier", "sparsity", "seed", "sparsifier_settings"}
        conditions = {key: value for key, value in self.identity.items() if key not in compared}
        others = {kind: version for kind, version in self.versions.items() if kind != "sparsifier"}
        return conditions | {"versions": others}

    @property
    def settings(self) -> dict[str, Any]:
        """What is in :attr:`identity` beside model, dataset, sparsifier, sparsity and seed."""
        return {key: value for key, value in self.identity.items() if isinstance(value, dict)}

    @property
    def flattened(self) -> dict[str, Any]:
        """All that the cell is, one value per key: ``{"model": "ldm", "training.steps": 100, …}``;
        lists are values."""
        return flatten(self.model_dump(mode="json"), ".")

    @cached_property
    def kin(self) -> str:
        """The text of :attr:`conditions`: the same for all cells that one table can hold."""
        return canonical(self.conditions)

    @cached_property
    def id(self) -> str:
        """Readable, and a hash of the cell's identity."""
        readable = f"{self.model}-{self.dataset}-{self.sparsifier}-{self.sparsity:g}-{self.seed}"
        return f"{readable}-{digest(self.identity)[:12]}"

    def remember(self, id: str) -> None:
        """Take an :attr:`id` that is known, which need not be worked out again."""
        self.__dict__["id"] = id

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        copied = super().model_copy(update=update, deep=deep)
        for derived in ("id", "kin"):
            copied.__dict__.pop(derived, None)
        return copied
