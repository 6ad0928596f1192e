"""From a benchmark to its cells: the cross product of the axes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from dstbench.cache import digest
from dstbench.errors import ConfigError

if TYPE_CHECKING:
    from dstbench.config import Benchmark, Task

__all__ = ["Cell"]  # all that plugins need of it
DENSE = "dense"
"""The name of the reference: the same training without a sparsifier."""


_WITHOUT_INFLUENCE = {
    "training": {"log_every", "checkpoint_every", "checkpoint_minutes"},
    "evaluation": {"batch_size"},
}


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
    """Of the plugins that make the cell, by their kind: distribution and version, such as
    ``{"model": "dstbench 0.1.0"}``. Cells of before versions were kept have none."""

    @property
    def task(self) -> str:
        return f"{self.model} on {self.dataset}"

    @property
    def identity(self) -> dict[str, Any]:
        """All that determines the result: versions of plugins, and every setting but how often a
        run writes something down, and how many images it samples and scores at a time."""
        identity = self.model_dump(mode="json", exclude=_WITHOUT_INFLUENCE)
        if not self.versions:
            del identity["versions"]
        return identity

    @property
    def settings(self) -> dict[str, Any]:
        """What is in :attr:`identity` beside model, dataset, sparsifier, sparsity and seed."""
        return {key: value for key, value in self.identity.items() if isinstance(value, dict)}

    @property
    def id(self) -> str:
        """Readable, and a hash of the cell's identity."""
        readable = f"{self.model}-{self.dataset}-{self.sparsifier}-{self.sparsity:g}-{self.seed}"
        return f"{readable}-{digest(self.identity)[:12]}"


def cells(benchmark: Benchmark) -> list[Cell]:
    """Every cell of the benchmark: by task, then by seed; dense first, then by sparsifier, its
    settings and sparsity.

    Raises :class:`ConfigError` if two cells are the same.
    """
    grid = [
        Cell(
            model=task.model,
            dataset=task.dataset,
            sparsifier=sparsifier,
            sparsity=sparsity,
            seed=seed,
            model_settings=task.model_settings.model_dump(mode="json"),
            dataset_settings=task.dataset_settings.model_dump(mode="json"),
            sparsifier_settings=settings,
            extractor_settings=task.extractor_settings.model_dump(mode="json"),
            training=task.training.model_dump(mode="json"),
            evaluation=task.evaluation.model_dump(mode="json"),
            versions=_versions(task, sparsifier),
        )
        for task in benchmark.tasks
        for seed in benchmark.seeds
        for sparsifier, settings, sparsity in _methods(benchmark, task)
    ]
    repeated = [name for name, count in Counter(cell.id for cell in grid).items() if count > 1]
    if repeated:
        raise ConfigError(
            f"benchmark '{benchmark.name}': cell {repeated[0]} comes up more than once; "
            "tasks and the values of an axis must differ from each other"
        )
    return grid


def _methods(benchmark: Benchmark, task: Task) -> Iterator[tuple[str, dict[str, Any], float]]:
    """Sparsifier, settings and sparsity of each method that a task is trained with."""
    if DENSE in benchmark.sparsifiers:
        yield DENSE, {}, 0.0
    for sparsifier in benchmark.sparsifiers:
        for settings in task.sparsifier_settings.get(sparsifier, ()):
            for sparsity in benchmark.sparsities:
                yield sparsifier, settings.model_dump(mode="json"), sparsity


def _versions(task: Task, sparsifier: str) -> dict[str, str]:
    of_sparsifier = task.sparsifier_versions.get(sparsifier)
    return {**task.versions, **({"sparsifier": of_sparsifier} if of_sparsifier else {})}


def variants(cells: Sequence[Cell]) -> dict[str, str]:
    """By cell id: the settings (or version) that set it apart from others of its task and
    sparsifier, such as ``"prune_rate=0.05"``; empty where there are none."""
    alike: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        alike.setdefault((cell.task, cell.sparsifier), []).append(cell)
    return {
        cell.id: variant
        for group in alike.values()
        for cell, variant in zip(group, distinctions([c.settings for c in group]), strict=True)
    }


def distinctions(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """What sets each of several settings apart from the others: ``"prune_rate=0.05"``.

    A version, kept under ``versions``, needs no key: ``"dstbench 0.1.0"``.
    """
    flat = [dict(_leaves(each)) for each in settings]
    varying = [
        path
        for path in dict.fromkeys(chain.from_iterable(flat))
        if len({each.get(path) for each in flat}) > 1
    ]
    return [
        ", ".join(
            # A setting and what the protocol made of it are often the same words: say them once.
            dict.fromkeys(_in_words(path, each[path]) for path in varying if path in each)
        )
        for each in flat
    ]


def _in_words(path: tuple[str, ...], value: str) -> str:
    return value if path[0] == "versions" else f"{path[-1]}={value}"


def _leaves(
    settings: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], str]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value if isinstance(value, str) else json.dumps(value)
