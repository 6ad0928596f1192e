"""From a benchmark to its cells: the cross product of the axes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from dstbench.cache import digest
from dstbench.errors import ConfigError

if TYPE_CHECKING:
    from dstbench.config import Benchmark, Task

DENSE = "dense"
"""The name of the reference: the same training without a sparsifier."""


_WITHOUT_INFLUENCE = {"training": {"log_every", "checkpoint_every"}, "evaluation": {"batch_size"}}


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

    @property
    def task(self) -> str:
        return f"{self.model} on {self.dataset}"

    @property
    def identity(self) -> dict[str, Any]:
        """All that determines the result: every setting but how often a run writes something down,
        and how many images it samples and scores at a time."""
        return self.model_dump(mode="json", exclude=_WITHOUT_INFLUENCE)

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
