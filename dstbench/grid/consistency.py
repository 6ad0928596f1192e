"""What a benchmark file asks for that cannot be, or that nothing uses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from dstbench.cell import DENSE
from dstbench.errors import SparsityError, did_you_mean
from dstbench.grid.benchmark import Benchmark
from dstbench.grid.problems import Problems
from dstbench.grid.schema import Tables
from dstbench.grid.tables import KeyPath, Table
from dstbench.plugins.isolation import FAILURES
from dstbench.plugins.registry import Plugins


def refuse_sparsities(
    benchmark: Benchmark, grid: Table, plugins: Plugins, problems: Problems
) -> None:
    """Note the sparsities that a sparsifier which the file names is not defined for."""
    for task in benchmark.tasks:
        for name in grid.values["sparsifiers"]:
            for settings, sparsity in task.methods(name, benchmark.sparsities):
                try:
                    cls: Any = plugins.find("sparsifier", name)
                    steps = task.training.steps
                    cls(sparsity, total_steps=steps, **settings.model_dump(mode="json"))
                except SparsityError as error:
                    index = benchmark.sparsities.index(sparsity)
                    problems.note(grid.locate(("sparsities", index)), f"{name}: {error}")
                except FAILURES:
                    pass  # its cells fail, and say so


def refuse_unused(
    at: KeyPath,
    tables: Tables,
    benchmarks: Iterable[Benchmark],
    also: Sequence[str],
    problems: Problems,
) -> None:
    """Note the tables at ``at`` of plugins that none of the benchmarks there uses."""
    used: dict[str, set[str]] = {
        "models": set(),
        "datasets": set(),
        "sparsifiers": set(also) - {DENSE},
        "extractors": set(),
        "tracking": set(),
    }
    for benchmark in benchmarks:
        used["tracking"].update(benchmark.trackers)
        used["sparsifiers"].update(set(benchmark.sparsifiers) - {DENSE})
        for task in benchmark.tasks:
            used["models"].add(task.model)
            used["datasets"].add(task.dataset)
            used["extractors"].add(task.evaluation.extractor)
    for kind, names in used.items():
        for name, value in getattr(tables, kind, {}).items():
            if isinstance(value, dict) and name not in names:
                hint = did_you_mean(name, names)
                problems.note((*at, kind, name), f"nothing uses this table; {hint}")
