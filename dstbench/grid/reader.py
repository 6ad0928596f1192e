"""Benchmark files: from TOML to a validated :class:`Benchmark`.

Every error names the file, the line, the key, what is wrong and what would be right::

    name = "quickstart"

    [grid]
    seeds = [0]
    sparsities = [0.5, 0.9]
    sparsifiers = ["dense", "static", "rigl"]   # dense: once per seed, at sparsity 0

    [[tasks]]
    model = "ldm"
    dataset = "digits"

    [sparsifiers.rigl]
    prune_rate = [0.05, 0.5]    # a list where the plugin wants one value: an axis of the grid

    [[sparsifiers.rigl.from]]
    sparsity = 0.9              # and above: other settings
    prune_rate = 0.05

    [training]
    steps = 2000

Where cells are run is said by ``[execution]`` and, by an executor's name, ``[executors.NAME]``; how
results are compared by ``[report]``, what others have published by ``[[targets]]``, and which
programs are told of a run by ``[tracking]`` and, by a tracker's name, ``[tracking.NAME]``.

A task may repeat any of the tables ``models``, ``datasets``, ``sparsifiers``, ``extractors``
(each by a plugin's name), ``training`` and ``evaluation``; its keys win over the file's. So may a
preset, and others; where it is chosen, its keys win over all, and results go to ``NAME-PRESET``::

    [presets.cpu.training]
    steps = 200
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from dstbench.cell import DENSE, RESERVED
from dstbench.errors import ConfigError, did_you_mean
from dstbench.grid.axes import FROM, axes, axes_from
from dstbench.grid.benchmark import Benchmark, Task
from dstbench.grid.consistency import refuse_also, refuse_sparsities, refuse_targets, refuse_unused
from dstbench.grid.finding import Finder, Found
from dstbench.grid.problems import Problems
from dstbench.grid.schema import FileTables, GridTable, TaskTables
from dstbench.grid.source import parse, read_text
from dstbench.grid.tables import KeyPath, Table, over, table_at
from dstbench.grid.trackers import trackers
from dstbench.plugins.isolation import FAILURES
from dstbench.plugins.plugin import check_name
from dstbench.plugins.registry import Plugins
from dstbench.settings import (
    METRICS,
    EvaluationSettings,
    ExecutionSettings,
    PluginSettings,
    ReportSettings,
    TrainingSettings,
)

OWN_TABLES: Mapping[str, type[PluginSettings]] = {
    "training": TrainingSettings,
    "evaluation": EvaluationSettings,
    "execution": ExecutionSettings,
    "report": ReportSettings,
}
"""The tables that are no plugin's."""


def load_benchmark(
    source: Path | Mapping[str, Any],
    plugins: Plugins,
    preset: str | None = None,
    also: Sequence[str] = (),
) -> Benchmark:
    """Read and validate a benchmark, as it is or with one of its presets.

    Args:
        source: a TOML file, or what one would hold, as a dictionary.
        also: sparsifiers (``--only sparsifier=…``) that join its grid if they are not in it.

    Raises :class:`ConfigError`, which names all that is wrong with it, presets that were not
    chosen included; and for a preset that it does not have.
    """
    if isinstance(source, Mapping):
        return _Reader("benchmark", "", source, plugins, also).read(preset)
    text = read_text(source)
    return _Reader(str(source), text, parse(text, source), plugins, also).read(preset)


class _Reader:
    """Validates one benchmark; what is wrong with it is collected in ``problems``."""

    def __init__(
        self, name: str, text: str, data: Mapping[str, Any], plugins: Plugins, also: Sequence[str]
    ) -> None:
        self.name = name
        self.data = data
        self.plugins = plugins
        self.also = also
        self.problems = Problems(name, text)
        self.finder = Finder(plugins, self.problems)

    def read(self, preset: str | None) -> Benchmark:
        file = self.problems.validate(FileTables, Table((), dict(self.data)))
        if self.problems:  # which hide no other's
            for name, schema in OWN_TABLES.items():
                if isinstance(values := self.data.get(name), dict):
                    self.problems.validate(schema, Table((name,), values))
        self.problems.stop_if_any()
        for name in file.presets:
            try:
                check_name(name)
            except ValueError as error:
                self.problems.note(("presets", name), str(error))
        benchmarks = {
            name: self._benchmark(file, name, self.also if name == preset else ())
            for name in (None, *file.presets)
        }
        self._refuse_unused(file, benchmarks)
        for chosen, benchmark in benchmarks.items():
            grid = self._table(((), *over(chosen)), "grid")
            refuse_sparsities(benchmark, grid, self.plugins, self.problems)
        refuse_targets(benchmarks[None], self.plugins, self.problems)
        self.problems.stop_if_any()
        if preset not in benchmarks:
            hint = did_you_mean(preset or "", file.presets)
            raise ConfigError(f"{self.name}: unknown preset '{preset}'; {hint}")
        return benchmarks[preset]

    def _refuse_unused(self, file: FileTables, benchmarks: Mapping[str | None, Benchmark]) -> None:
        """Refuse tables that no plugin in use would see: the file's, presets' and tasks'."""
        refuse_unused((), file, benchmarks.values(), self.also, self.problems)
        for name, tables in file.presets.items():
            refuse_unused(("presets", name), tables, [benchmarks[name]], self.also, self.problems)
        for index, task in enumerate(file.tasks):
            alone = [
                replace(each, tasks=each.tasks[index : index + 1]) for each in benchmarks.values()
            ]
            refuse_unused(("tasks", index), task, alone, self.also, self.problems)
        self.problems.stop_if_any()

    def _benchmark(self, file: FileTables, preset: str | None, also: Sequence[str]) -> Benchmark:
        presets = over(preset)
        starts = ((), *presets)
        table = self._table(starts, "grid")
        grid = self.problems.validate(GridTable, table)
        execution = self.problems.validate(ExecutionSettings, self._table(starts, "execution"))
        report = self.problems.validate(ReportSettings, self._table(starts, "report"))
        own = [self._training_and_evaluation(index, presets) for index in range(len(file.tasks))]
        self.problems.stop_if_any()  # none hides another's
        mentioned = {
            name: self.problems.place(table.locate(("sparsifiers", index)))
            for index, name in enumerate(grid.sparsifiers)
        }
        for name in also:
            mentioned.setdefault(name, f"--only sparsifier={name}")
        sparsifiers = {
            name: self.finder.find("sparsifier", name, where)
            for name, where in mentioned.items()
            if name not in RESERVED
        }
        names = ", ".join(name for name in mentioned if name != DENSE)
        if names and not grid.sparsities:
            self.problems.note(
                table.locate(("sparsities",)), f"is empty, but {names} would need at least one"
            )
        self.problems.stop_if_any()
        executors = self._executors(execution.executor, presets)
        return Benchmark(
            name=file.name if preset is None else f"{file.name}-{preset}",
            seeds=grid.seeds,
            sparsities=grid.sparsities,
            sparsifiers=tuple(mentioned),
            tasks=tuple(
                self._task(index, task, presets, sparsifiers, *own[index])
                for index, task in enumerate(file.tasks)
            ),
            execution=execution,
            report=report,
            added=tuple(name for name in mentioned if name not in grid.sparsifiers),
            executors=executors,
            trackers=trackers(partial(self._table, starts), self.finder, self.problems),
            targets=() if preset else file.targets,
        )

    def _training_and_evaluation(
        self, index: int, presets: tuple[KeyPath, ...]
    ) -> tuple[TrainingSettings, EvaluationSettings]:
        """Those of a task."""
        starts = ((), ("tasks", index), *presets)
        return (
            self.problems.validate(TrainingSettings, self._table(starts, "training")),
            self.problems.validate(EvaluationSettings, self._table(starts, "evaluation")),
        )

    def _executors(
        self, chosen: str | None, presets: tuple[KeyPath, ...]
    ) -> dict[str, PluginSettings]:
        """The settings of the executor that is chosen, and of all that have a table."""
        starts = ((), *presets)
        table = self._table(starts, "execution")
        named = {chosen: table.locate(("executor",))} if chosen else {}
        named |= {name: ("executors", name) for name in self._table(starts, "executors").values}
        found = {
            name: self.finder.find("executor", name, self.problems.place(path))
            for name, path in named.items()
        }
        self.problems.stop_if_any()
        return {
            name: self._of_executor(executor.cls.Settings, self._table(starts, "executors", name))
            for name, executor in found.items()
        }

    def _of_executor(self, schema: type[PluginSettings], table: Table) -> PluginSettings:
        """Its settings, without which no cell could be run."""
        try:
            return self.problems.validate(schema, table)
        except FAILURES as error:
            self.problems.note(
                table.locate(()), f"its validation failed: {type(error).__name__}: {error}"
            )
            return schema.model_construct()

    def _task(
        self,
        index: int,
        task: TaskTables,
        presets: tuple[KeyPath, ...],
        sparsifiers: Mapping[str, Found],
        training: TrainingSettings,
        evaluation: EvaluationSettings,
    ) -> Task:
        at: KeyPath = ("tasks", index)
        problems, settings = self.problems, self.problems.validate_plugin

        def table(*keys: str) -> Table:
            return self._table(((), at, *presets), *keys)

        evaluation_table = table("evaluation")
        model = self.finder.find("model", task.model, problems.place((*at, "model")))
        dataset = self.finder.find("dataset", task.dataset, problems.place((*at, "dataset")))
        extractor = self.finder.find(
            "feature extractor",
            evaluation.extractor,
            problems.place(evaluation_table.locate(("extractor",))),
        )
        named = problems.place(evaluation_table.locate(("metrics",)))
        further = {
            f"metric {name}": self.finder.find("metric", name, named).origin
            for name in evaluation.metrics
            if name not in METRICS  # dstbench's own, which cells do not name
        }
        problems.stop_if_any()
        kind, accepts = dataset.cls.kind, model.cls.accepts
        if kind != accepts and None not in (kind, accepts):
            problems.note(
                (*at, "dataset"),
                f"'{task.dataset}' is a dataset of {kind}, but '{task.model}' takes {accepts}",
            )
        refuse_also(model.cls, table("models", task.model), evaluation_table, problems)
        return Task(
            model=task.model,
            dataset=task.dataset,
            model_settings=settings(model.cls.Settings, table("models", task.model)),
            dataset_settings=settings(dataset.cls.Settings, table("datasets", task.dataset)),
            sparsifier_settings={
                name: axes(each.cls.Settings, table("sparsifiers", name).without(FROM), problems)
                for name, each in sparsifiers.items()
            },
            extractor_settings=settings(
                extractor.cls.Settings, table("extractors", evaluation.extractor)
            ),
            training=training,
            evaluation=evaluation,
            versions={
                "model": model.origin,
                "dataset": dataset.origin,
                "feature extractor": extractor.origin,
                **further,
            },
            sparsifier_versions={name: each.origin for name, each in sparsifiers.items()},
            settings_from={
                name: levels
                for name, each in sparsifiers.items()
                if (levels := axes_from(each.cls.Settings, table("sparsifiers", name), problems))
            },
        )

    def _table(self, starts: Iterable[KeyPath], *keys: str) -> Table:
        return table_at(self.data, starts, *keys)
