"""The cells of a benchmark: the cross product of its axes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dstbench.cell import DENSE, Cell
from dstbench.errors import ConfigError

if TYPE_CHECKING:
    from dstbench.grid.benchmark import Benchmark, Task

__all__ = ["Cell"]  # all that plugins need of it


def cells(benchmark: Benchmark) -> list[Cell]:
    """Every cell of the benchmark: by task, then by seed; dense first, then by sparsifier, its
    settings and sparsity.

    Raises :class:`ConfigError` if two cells are the same.
    """
    grid = [cell for task in benchmark.tasks for cell in _cells(benchmark, task)]
    repeated = [name for name, count in Counter(cell.id for cell in grid).items() if count > 1]
    if repeated:
        raise ConfigError(
            f"benchmark '{benchmark.name}': cell {repeated[0]} comes up more than once; "
            "tasks and the values of an axis must differ from each other"
        )
    return grid


def _cells(benchmark: Benchmark, task: Task) -> Iterator[Cell]:
    settings = {
        "model_settings": task.model_settings.model_dump(mode="json"),
        "dataset_settings": task.dataset_settings.model_dump(mode="json"),
        "extractor_settings": task.extractor_settings.model_dump(mode="json"),
        "training": task.training.model_dump(mode="json"),
        "evaluation": task.evaluation.model_dump(mode="json"),
    }
    methods = list(_methods(benchmark, task))
    for seed in benchmark.seeds:
        for sparsifier, sparsifier_settings, sparsity in methods:
            yield Cell(
                model=task.model,
                dataset=task.dataset,
                sparsifier=sparsifier,
                sparsity=sparsity,
                seed=seed,
                sparsifier_settings=sparsifier_settings,
                versions=_versions(task, sparsifier),
                **settings,
            )


def _methods(benchmark: Benchmark, task: Task) -> Iterator[tuple[str, dict[str, Any], float]]:
    """Sparsifier, settings and sparsity of each method that a task is trained with."""
    if DENSE in benchmark.sparsifiers:
        yield DENSE, {}, 0.0
    for sparsifier in benchmark.sparsifiers:
        for settings, sparsity in task.methods(sparsifier, benchmark.sparsities):
            yield sparsifier, settings.model_dump(mode="json"), sparsity


def _versions(task: Task, sparsifier: str) -> dict[str, str]:
    of_sparsifier = task.sparsifier_versions.get(sparsifier)
    return {**task.versions, **({"sparsifier": of_sparsifier} if of_sparsifier else {})}
