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

    [training]
    steps = 2000

Where cells are run is said by ``[execution]`` (see
:class:`~dstbench.settings.ExecutionSettings`) and, by an executor's name, ``[executors.NAME]``.

A task may repeat any of the tables ``models``, ``datasets``, ``sparsifiers``, ``extractors``
(each by a plugin's name), ``training`` and ``evaluation``; its keys win over the file's.

So may a preset, which may repeat all the others too; where it is chosen, its keys win over the
file's and over those of every task, and results go to a folder of their own, ``NAME-PRESET``::

    [presets.cpu.training]
    steps = 200
"""

from __future__ import annotations

import itertools
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from dstbench.contracts import PluginSettings
from dstbench.errors import ConfigError, PluginError, SparsityError
from dstbench.failures import FAILURES
from dstbench.grid import DENSE
from dstbench.hints import did_you_mean
from dstbench.plugins import Kind, Plugins, check_name
from dstbench.settings import EvaluationSettings, ExecutionSettings, TrainingSettings
from dstbench.toml_lines import KeyPath, TomlLines, dotted

Schema = TypeVar("Schema", bound=BaseModel)


@dataclass(frozen=True)
class Task:
    """A model on a dataset, with every setting resolved."""

    model: str
    dataset: str
    model_settings: PluginSettings
    dataset_settings: PluginSettings
    sparsifier_settings: Mapping[str, tuple[PluginSettings, ...]]
    """By sparsifier: one for each combination of the values of its axes."""
    extractor_settings: PluginSettings
    training: TrainingSettings
    evaluation: EvaluationSettings
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of model, dataset and feature extractor: which distribution each comes from."""
    sparsifier_versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Benchmark:
    """A validated benchmark file."""

    name: str
    """Of the file and, after a hyphen, of the preset."""
    seeds: tuple[int, ...]
    sparsities: tuple[float, ...]
    sparsifiers: tuple[str, ...]
    """As named in the file; ``dense`` is the reference."""
    tasks: tuple[Task, ...]
    execution: ExecutionSettings = field(default_factory=ExecutionSettings)
    executors: Mapping[str, PluginSettings] = field(default_factory=dict)
    """Settings of executors, by name: of the one to be used, and of those with a table."""


def load_benchmark(
    path: Path, plugins: Plugins, preset: str | None = None, also: Sequence[str] = ()
) -> Benchmark:
    """Read and validate a benchmark file, as it is or with one of its presets.

    ``also`` are sparsifiers (``--only sparsifier=…``) that join its grid if they are not in it.

    Raises :class:`ConfigError`, which names all that is wrong with the file, presets that were not
    chosen included; and for a preset that the file does not have.
    """
    text = _read(path)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: this is not valid TOML: {error}") from None
    return _Reader(path, text, plugins, also).read(data, preset)


def _unique(items: tuple[Any, ...]) -> tuple[Any, ...]:
    for index, item in enumerate(items):
        if item in items[:index]:
            raise ValueError(
                f"{json.dumps(item, ensure_ascii=False)} is given twice; once would be right"
            )
    return items


def _not_empty(items: tuple[Any, ...]) -> tuple[Any, ...]:
    if not items:
        raise ValueError("is empty; it needs at least one")
    return items


Seed = Annotated[int, Field(ge=0)]
Sparsity = Annotated[float, Field(ge=0, lt=1)]
NotEmpty = AfterValidator(_not_empty)
Unique = AfterValidator(_unique)


class _Grid(PluginSettings):
    seeds: Annotated[tuple[Seed, ...], NotEmpty, Unique] = Field(
        description="at least one integer, such as [0, 1, 2]"
    )
    sparsities: Annotated[tuple[Sparsity, ...], Unique] = ()
    sparsifiers: Annotated[tuple[str, ...], NotEmpty, Unique] = Field(
        description='at least one name, such as ["dense", "static"]'
    )


class _Tables(PluginSettings):
    models: dict[str, dict[str, Any]] = Field(default_factory=dict)
    datasets: dict[str, dict[str, Any]] = Field(default_factory=dict)
    sparsifiers: dict[str, dict[str, Any]] = Field(default_factory=dict)
    extractors: dict[str, dict[str, Any]] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    evaluation: dict[str, Any] = Field(default_factory=dict)


class _Task(_Tables):
    model: str = Field(description="name a model plugin")
    dataset: str = Field(description="name a dataset plugin")


class _Run(_Tables):
    execution: dict[str, Any] = Field(default_factory=dict)
    executors: dict[str, dict[str, Any]] = Field(default_factory=dict)


class _Preset(_Run):
    grid: dict[str, Any] = Field(default_factory=dict)


class _File(_Run):
    name: Annotated[str, AfterValidator(check_name)] = Field(
        description="results are kept in a folder of this name"
    )
    grid: _Grid = Field(description="a table with seeds, sparsities and sparsifiers")
    tasks: Annotated[tuple[_Task, ...], NotEmpty] = Field(
        description="at least one [[tasks]] with a model and a dataset"
    )
    presets: dict[str, _Preset] = Field(default_factory=dict)


@dataclass(frozen=True)
class _Table:
    """The settings of one thing, and where in the file each of them stands."""

    path: KeyPath
    values: dict[str, Any]
    paths: dict[KeyPath, KeyPath] = field(default_factory=dict)

    def locate(self, location: KeyPath) -> KeyPath:
        for end in range(len(location), 0, -1):
            if location[:end] in self.paths:
                return (*self.paths[location[:end]], *location[end:])
        return (*self.path, *location)


class _AsWritten(PluginSettings):
    """Settings that nobody can check, because their plugin fails; so will its cells."""

    model_config = ConfigDict(extra="allow")


class _Broken:
    """In place of the class of a plugin that could not be loaded."""

    Settings = _AsWritten
    kind = accepts = None


class _Found(NamedTuple):
    """A plugin that a file names."""

    cls: type[Any]
    origin: str


class _Reader:
    """Validates one file; what is wrong with it is collected in ``problems``."""

    def __init__(self, path: Path, text: str, plugins: Plugins, also: Sequence[str]) -> None:
        self.path = path
        self.lines = TomlLines(text)
        self.plugins = plugins
        self.also = also
        self.problems: dict[str, None] = {}  # a set that keeps its order

    def read(self, data: dict[str, Any], preset: str | None) -> Benchmark:
        file = self._validate(_File, _Table((), data))
        self._stop_if_wrong()
        self.data = data
        for name in file.presets:
            try:
                check_name(name)
            except ValueError as error:
                self._note(("presets", name), str(error))
        benchmarks = {
            name: self._benchmark(file, name, self.also if name == preset else ())
            for name in (None, *file.presets)
        }
        self._refuse_unused((), file, benchmarks.values())
        for name, tables in file.presets.items():
            self._refuse_unused(("presets", name), tables, [benchmarks[name]])
        for index, task in enumerate(file.tasks):
            alone = [
                replace(each, tasks=each.tasks[index : index + 1]) for each in benchmarks.values()
            ]
            self._refuse_unused(("tasks", index), task, alone)
        self._stop_if_wrong()
        for chosen, benchmark in benchmarks.items():
            self._refuse_sparsities(benchmark, chosen)
        self._stop_if_wrong()
        if preset not in benchmarks:
            hint = did_you_mean(preset or "", file.presets)
            raise ConfigError(f"{self.path}: unknown preset '{preset}'; {hint}")
        return benchmarks[preset]

    def _benchmark(self, file: _File, preset: str | None, also: Sequence[str]) -> Benchmark:
        over = _over(preset)
        table = self._table(((), *over), "grid")
        grid = self._validate(_Grid, table)
        self._stop_if_wrong()
        mentioned = {
            name: self._place(table.locate(("sparsifiers", index)))
            for index, name in enumerate(grid.sparsifiers)
        }
        for name in also:
            mentioned.setdefault(name, f"--only sparsifier={name}")
        sparsifiers = {
            name: self._find("sparsifier", name, where)
            for name, where in mentioned.items()
            if name != DENSE
        }
        if sparsifiers and not grid.sparsities:
            names = ", ".join(sparsifiers)
            self._note(
                table.locate(("sparsities",)), f"is empty, but {names} would need at least one"
            )
        execution, executors = self._execution(over)
        return Benchmark(
            name=file.name if preset is None else f"{file.name}-{preset}",
            seeds=grid.seeds,
            sparsities=grid.sparsities,
            sparsifiers=tuple(mentioned),
            tasks=tuple(
                self._task(index, task, over, sparsifiers) for index, task in enumerate(file.tasks)
            ),
            execution=execution,
            executors=executors,
        )

    def _execution(
        self, over: tuple[KeyPath, ...]
    ) -> tuple[ExecutionSettings, dict[str, PluginSettings]]:
        starts = ((), *over)
        table = self._table(starts, "execution")
        execution = self._validate(ExecutionSettings, table)
        self._stop_if_wrong()
        named = {execution.executor: table.locate(("executor",))} if execution.executor else {}
        named |= {name: ("executors", name) for name in self._table(starts, "executors").values}
        found = {
            name: self._find("executor", name, self._place(path)) for name, path in named.items()
        }
        self._stop_if_wrong()
        return execution, {
            name: self._of_executor(executor.cls.Settings, self._table(starts, "executors", name))
            for name, executor in found.items()
        }

    def _of_executor(self, schema: type[PluginSettings], table: _Table) -> PluginSettings:
        """Its settings, without which no cell could be run."""
        try:
            return self._validate(schema, table)
        except FAILURES as error:
            self._note(table.locate(()), f"its validation failed: {type(error).__name__}: {error}")
            return schema.model_construct()

    def _task(
        self,
        index: int,
        task: _Task,
        over: tuple[KeyPath, ...],
        sparsifiers: Mapping[str, _Found],
    ) -> Task:
        at: KeyPath = ("tasks", index)

        def table(*keys: str) -> _Table:
            return self._table(((), at, *over), *keys)

        evaluation_table = table("evaluation")
        evaluation = self._validate(EvaluationSettings, evaluation_table)
        model = self._find("model", task.model, self._place((*at, "model")))
        dataset = self._find("dataset", task.dataset, self._place((*at, "dataset")))
        extractor = self._find(
            "feature extractor",
            evaluation.extractor,
            self._place(evaluation_table.locate(("extractor",))),
        )
        self._stop_if_wrong()
        kind, accepts = dataset.cls.kind, model.cls.accepts
        if kind != accepts and None not in (kind, accepts):
            self._note(
                (*at, "dataset"),
                f"'{task.dataset}' is a dataset of {kind}, but model '{task.model}' takes "
                f"{accepts}",
            )

        return Task(
            model=task.model,
            dataset=task.dataset,
            model_settings=self._settings(model.cls.Settings, table("models", task.model)),
            dataset_settings=self._settings(dataset.cls.Settings, table("datasets", task.dataset)),
            sparsifier_settings={
                name: self._axes(sparsifier.cls.Settings, table("sparsifiers", name))
                for name, sparsifier in sparsifiers.items()
            },
            extractor_settings=self._settings(
                extractor.cls.Settings, table("extractors", evaluation.extractor)
            ),
            training=self._validate(TrainingSettings, table("training")),
            evaluation=evaluation,
            versions={
                "model": model.origin,
                "dataset": dataset.origin,
                "feature extractor": extractor.origin,
            },
            sparsifier_versions={name: each.origin for name, each in sparsifiers.items()},
        )

    def _find(self, kind: Kind, name: str, mentioned_at: str) -> _Found:
        try:
            plugin = self.plugins.get(kind, name)
        except PluginError as error:
            self.problems[f"{mentioned_at}: {error}"] = None
            return _Found(_Broken, "")
        return _Found(plugin.cls or _Broken, plugin.origin)

    def _table(self, starts: Iterable[KeyPath], *keys: str) -> _Table:
        """What the file says under these keys from each of the starts, later ones over earlier."""
        table = _Table(keys, {})
        for start in starts:
            node: Any = self.data
            for key in start:
                node = node[key]
            for key in keys:
                node = node.get(key, {})
            _overlay(table, table.values, node, (*start, *keys), ())
        return table

    def _axes(self, schema: type[PluginSettings], table: _Table) -> tuple[PluginSettings, ...]:
        """The settings for each combination of the axes' values."""
        axes = {
            key: value
            for key, value in table.values.items()
            if isinstance(value, list) and key in schema.model_fields and _is_scalar(schema, key)
        }
        for key, values in axes.items():
            try:
                _unique(tuple(values))
            except ValueError as error:
                self._note(table.locate((key,)), str(error))
            if not values:
                self._note(table.locate((key,)), "is an empty list; name at least one value")
        return tuple(
            self._settings(
                schema,
                replace(table, values=table.values | dict(zip(axes, values, strict=True))),
            )
            for values in itertools.product(*axes.values())
        )

    def _settings(self, schema: type[PluginSettings], table: _Table) -> PluginSettings:
        """Of a plugin, whose validators are its own and may fail in any way."""
        try:
            settings = self._validate(schema, table)
            settings.model_dump(mode="json")
        except FAILURES:
            return self._validate(_AsWritten, table)
        return settings

    def _refuse_sparsities(self, benchmark: Benchmark, preset: str | None) -> None:
        """Note the sparsities that a sparsifier of the file's cannot be had at."""
        table = self._table(((), *_over(preset)), "grid")
        for task in benchmark.tasks:
            for name in table.values["sparsifiers"]:
                for settings, (index, sparsity) in itertools.product(
                    task.sparsifier_settings.get(name, ()), enumerate(benchmark.sparsities)
                ):
                    try:
                        self.plugins.find("sparsifier", name)(
                            sparsity,
                            total_steps=task.training.steps,
                            **settings.model_dump(mode="json"),
                        )
                    except SparsityError as error:
                        at = table.locate(("sparsities", index))
                        self._note(at, f"{name}: {error}")
                    except FAILURES:
                        pass  # its cells fail, and say so

    def _refuse_unused(self, at: KeyPath, tables: _Tables, benchmarks: Iterable[Benchmark]) -> None:
        """Note the tables at ``at`` of plugins that none of the benchmarks there uses."""
        used: dict[str, set[str]] = {
            "models": set(),
            "datasets": set(),
            "sparsifiers": set(self.also) - {DENSE},
            "extractors": set(),
        }
        for benchmark in benchmarks:
            used["sparsifiers"].update(set(benchmark.sparsifiers) - {DENSE})
            for task in benchmark.tasks:
                used["models"].add(task.model)
                used["datasets"].add(task.dataset)
                used["extractors"].add(task.evaluation.extractor)
        for kind, names in used.items():
            for name in getattr(tables, kind):
                if name not in names:
                    hint = did_you_mean(name, names)
                    self._note((*at, kind, name), f"nothing uses this table; {hint}")

    def _validate(self, schema: type[Schema], table: _Table) -> Schema:
        """The table as an instance of its schema; after a problem, one that is not usable."""
        try:
            # JSON's strict mode is TOML's typing: no "1" for 1, but arrays for tuples.
            return schema.model_validate_json(json.dumps(table.values, default=str), strict=True)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                self._note(table.locate(detail["loc"]), explain(detail, schema))
            return schema.model_construct()

    def _note(self, path: KeyPath, what: str) -> None:
        self.problems[f"{self._place(path)}: {what}"] = None

    def _place(self, path: KeyPath) -> str:
        """File, line and key, as an error message begins."""
        line = self.lines.find(path)
        file = f"{self.path}:{line}" if line else f"{self.path}"
        return f"{file}: {dotted(path)}" if path else file

    def _stop_if_wrong(self) -> None:
        if self.problems:
            raise ConfigError("\n".join(self.problems))


def _over(preset: str | None) -> tuple[KeyPath, ...]:
    """Where in the file a preset's tables are."""
    return () if preset is None else (("presets", preset),)


def _overlay(
    table: _Table, values: dict[str, Any], over: dict[str, Any], path: KeyPath, location: KeyPath
) -> None:
    """Put what stands at ``path`` in the file over the table's values at ``location``."""
    for key, value in over.items():
        here = (*location, key)
        table.paths[here] = (*path, key)
        if isinstance(value, dict):
            values[key] = nested = values[key] if isinstance(values.get(key), dict) else {}
            _overlay(table, nested, value, (*path, key), here)
        else:
            values[key] = value


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        near = (file.name for file in path.parent.glob("*.toml"))
        hint = did_you_mean(path.name, near)
        raise ConfigError(f"{path}: no such file; benchmarks in that folder: {hint}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: this is a folder; a benchmark is a TOML file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: this is not UTF-8, as TOML must be") from None


def _is_scalar(schema: type[PluginSettings], key: str) -> bool:
    """Whether the setting takes one value, so that a list of them makes an axis."""
    annotation: Any = schema.model_fields[key].annotation
    try:
        json_schema = TypeAdapter(annotation).json_schema()
    except FAILURES:  # a type of the plugin's own, and so is what a list of them means
        return False
    options = [json_schema, *json_schema.get("anyOf", [])]
    return not any(option.get("type") == "array" for option in options)


def explain(detail: ErrorDetails, schema: type[BaseModel]) -> str:
    """What pydantic found wrong, in our words."""
    location, given = detail["loc"], json.dumps(detail["input"], ensure_ascii=False, default=str)
    owner = _model_at(schema, location[:-1])
    match detail["type"]:
        case "extra_forbidden":
            return f"unknown key; {did_you_mean(str(location[-1]), owner.model_fields)}"
        case "missing":
            missing = owner.model_fields.get(str(location[-1]))
            hint = missing and missing.description
            return f"is missing; {hint}" if hint else "is missing"
        case "value_error":
            return str(detail["ctx"]["error"])
        case "model_type" | "dict_type":
            return f"should be a table, is {given}"
        case "tuple_type":
            field = owner.model_fields.get(str(location[-1]))
            hint = f"; {field.description}" if field and field.description else ""
            return f"should be a list, is {given}{hint}"
    return f"{detail['msg'].removeprefix('Input ')}, is {given}"


def _model_at(schema: type[BaseModel], location: KeyPath) -> type[BaseModel]:
    """The model that is nested in ``schema`` at this place."""
    for key in location:
        if isinstance(key, str) and key in schema.model_fields:
            schema = next(_models(schema.model_fields[key].annotation), schema)
    return schema


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
