"""What a benchmark file asks for that cannot be, or that nothing uses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from dstbench.cell import RESERVED, SMALL_DENSE
from dstbench.contracts import Model
from dstbench.errors import ConfigError, SparsityError, did_you_mean
from dstbench.grid.benchmark import Benchmark, Task
from dstbench.grid.problems import Problems
from dstbench.grid.schema import Tables
from dstbench.grid.tables import KeyPath, Table
from dstbench.plugins.isolation import FAILURES
from dstbench.plugins.registry import Plugins


def refuse_sparsities(
    benchmark: Benchmark, grid: Table, plugins: Plugins, problems: Problems
) -> None:
    """Note the sparsities that a sparsifier which the file names is not defined for, and the tasks
    whose model has no narrower networks, or whose budget a method does not fit."""
    for task in benchmark.tasks:
        for name in grid.values["sparsifiers"]:
            for settings, sparsity in task.methods(name, benchmark.sparsities):
                index = benchmark.sparsities.index(sparsity)
                at = grid.locate(("sparsities", index))
                if name == SMALL_DENSE:
                    _refuse_rigid(task, at, plugins, problems)
                    continue
                try:
                    from dstbench.counting.budget import check_budget  # which needs torch

                    cls: Any = plugins.find("sparsifier", name)
                    steps = task.training.steps
                    made = cls(sparsity, total_steps=steps, **settings.model_dump(mode="json"))
                    check_budget(task.training.budget, made)
                except (SparsityError, ConfigError) as error:
                    problems.note(at, f"{name}: {error}")
                except FAILURES:
                    pass  # its cells fail, and say so


def _refuse_rigid(task: Task, at: KeyPath, plugins: Plugins, problems: Problems) -> None:
    """Note that the task's model has no narrower networks."""
    try:
        model: type[Model] = plugins.find("model", task.model)
        sizes = model.narrower(task.model_settings)
    except FAILURES:
        return  # its cells fail, and say so
    if not sizes:
        from dstbench.counting.narrowing import rigid

        problems.note(at, f"{SMALL_DENSE}: {rigid(task.model)}")


def refuse_also(model: Any, settings: Table, evaluation: Table, problems: Problems) -> None:
    """Note what ``[[evaluation.also]]`` names that is no setting of the model's sampling, and
    values that the model refuses."""
    known = getattr(model, "sampling_settings", None)
    if known is None:  # nobody knows them; its cells fail, and say so
        return
    for index, values in enumerate(evaluation.values.get("also", ())):
        at = evaluation.locate(("also", index))
        unknown = [name for name in values if name not in known]
        for name in unknown:
            hint = did_you_mean(name, known)
            problems.note((*at, name), f"no setting of how '{model.name}' is sampled; {hint}")
        if not unknown:
            problems.validate_plugin(model.Settings, settings.overlaid(values, at))


def refuse_targets(benchmark: Benchmark, plugins: Plugins, problems: Problems) -> None:
    """Note published scores of what the benchmark does not train, or does not compute."""
    for index, target in enumerate(benchmark.targets):
        tasks = [task for task in benchmark.tasks if task.model == target.model]
        metrics = {name for task in tasks for name in task.evaluation.metrics}
        known = {
            "model": {task.model for task in benchmark.tasks},
            "dataset": {task.dataset for task in tasks},
            "sparsifier": set(benchmark.sparsifiers),
            "score": {name for metric in metrics for name in _scores(metric, plugins)},
        }
        for key, words in known.items():
            if words and (word := getattr(target, key)) not in words:
                hint = did_you_mean(word, words)
                problems.note(("targets", index, key), f"'{word}' is not in this file; {hint}")


def _scores(metric: str, plugins: Plugins) -> Iterator[str]:
    """The names of what a metric gives; nothing where it cannot be loaded, which its cells say."""
    with suppress(*FAILURES):
        yield from (quantity.name for quantity in plugins.find("metric", metric).quantities)


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
        "sparsifiers": set(also) - RESERVED.keys(),
        "extractors": set(),
        "tracking": set(),
    }
    for benchmark in benchmarks:
        used["tracking"].update(benchmark.trackers)
        used["sparsifiers"].update(set(benchmark.sparsifiers) - RESERVED.keys())
        for task in benchmark.tasks:
            used["models"].add(task.model)
            used["datasets"].add(task.dataset)
            used["extractors"].add(task.evaluation.extractor)
    for kind, names in used.items():
        for name, value in getattr(tables, kind, {}).items():
            if isinstance(value, dict) and name not in names:
                hint = did_you_mean(name, names)
                problems.note((*at, kind, name), f"nothing uses this table; {hint}")
