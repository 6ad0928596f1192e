"""The tables of a benchmark file, before plugins have checked theirs."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from dstbench.plugins.plugin import check_name
from dstbench.settings import PluginSettings, TargetSettings


def unique(items: tuple[Any, ...]) -> tuple[Any, ...]:
    for index, item in enumerate(items):
        if item in items[:index]:
            given = json.dumps(item, ensure_ascii=False, default=str)
            raise ValueError(f"{given} is given twice; once would be right")
    return items


def not_empty(items: tuple[Any, ...]) -> tuple[Any, ...]:
    if not items:
        raise ValueError("is empty; it needs at least one")
    return items


Seed = Annotated[int, Field(ge=0, lt=2**63)]
Sparsity = Annotated[float, Field(ge=0, lt=1)]
NotEmpty = AfterValidator(not_empty)
Unique = AfterValidator(unique)


class GridTable(PluginSettings):
    """The axes of the grid: a cell is run for each task, seed, sparsifier and sparsity."""

    seeds: Annotated[tuple[Seed, ...], NotEmpty, Unique] = Field(
        description="at least one integer, such as [0, 1, 2]"
    )
    sparsities: Annotated[tuple[Sparsity, ...], Unique] = Field(
        (), description="fractions of the sparsifiable weights that are zero, such as [0.5, 0.9]"
    )
    sparsifiers: Annotated[tuple[str, ...], NotEmpty, Unique] = Field(
        description='at least one name, such as ["dense", "static"]; dense is the reference, which '
        "is run once per seed, at sparsity 0, and small-dense a narrower dense network of about as "
        "many parameters as a sparse one of each sparsity has active"
    )


class Tables(PluginSettings):
    models: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="settings of models, such as [models.ldm]"
    )
    datasets: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="settings of datasets, such as [datasets.kanjivg]"
    )
    sparsifiers: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="settings of sparsifiers, such as [sparsifiers.rigl]; a list where one value "
        "is wanted is another axis of the grid, and [[sparsifiers.rigl.from]] names a sparsity and "
        "the settings that are others from it on",
    )
    extractors: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="settings of feature extractors, such as [extractors.inception]",
    )
    training: dict[str, Any] = Field(default_factory=dict, description="how cells are trained")
    evaluation: dict[str, Any] = Field(
        default_factory=dict, description="how cells are sampled from and scored"
    )


class TaskTables(Tables):
    """A model and the dataset it is trained on; as many as you like, each begins with [[tasks]].

    A task may repeat some of the file's tables, as in [tasks.training]: its keys win over the
    file's.
    """

    model: str = Field(description="a model, by its plugin's name")
    dataset: str = Field(description="a dataset, by its plugin's name")


class RunTables(Tables):
    execution: dict[str, Any] = Field(default_factory=dict, description="where cells are run")
    executors: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="settings of executors, such as [executors.slurm]"
    )
    report: dict[str, Any] = Field(default_factory=dict, description="how results are compared")
    tracking: dict[str, Any] = Field(
        default_factory=dict, description="which programs are told of a run while it goes on"
    )


class PresetTables(RunTables):
    """Another size of the same experiment, for dstbench run FILE --preset NAME.

    A preset may repeat any of these tables, as in [presets.NAME.training]: its keys win over the
    file's and over those of every task. Its results are kept in a folder of their own,
    BENCHMARK-NAME.
    """

    grid: dict[str, Any] = Field(default_factory=dict, description="the axes of the grid")


class FileTables(RunTables):
    """What a benchmark file may hold."""

    name: Annotated[str, AfterValidator(check_name)] = Field(
        description="results are kept in a folder of this name"
    )
    grid: GridTable = Field(description="a table with seeds, sparsities and sparsifiers")
    tasks: Annotated[tuple[TaskTables, ...], NotEmpty] = Field(
        description="at least one [[tasks]] with a model and a dataset"
    )
    targets: tuple[TargetSettings, ...] = Field(
        (), description="published scores to show under the leaderboard, each a [[targets]]"
    )
    presets: dict[str, PresetTables] = Field(
        default_factory=dict, description="other sizes of the experiment, such as [presets.cpu]"
    )
