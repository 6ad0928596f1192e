"""The tables of a benchmark file, before plugins have checked theirs."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from dstbench.plugins.plugin import check_name
from dstbench.settings import PluginSettings


def unique(items: tuple[Any, ...]) -> tuple[Any, ...]:
    for index, item in enumerate(items):
        if item in items[:index]:
            raise ValueError(
                f"{json.dumps(item, ensure_ascii=False)} is given twice; once would be right"
            )
    return items


def not_empty(items: tuple[Any, ...]) -> tuple[Any, ...]:
    if not items:
        raise ValueError("is empty; it needs at least one")
    return items


Seed = Annotated[int, Field(ge=0)]
Sparsity = Annotated[float, Field(ge=0, lt=1)]
NotEmpty = AfterValidator(not_empty)
Unique = AfterValidator(unique)


class GridTable(PluginSettings):
    seeds: Annotated[tuple[Seed, ...], NotEmpty, Unique] = Field(
        description="at least one integer, such as [0, 1, 2]"
    )
    sparsities: Annotated[tuple[Sparsity, ...], Unique] = ()
    sparsifiers: Annotated[tuple[str, ...], NotEmpty, Unique] = Field(
        description='at least one name, such as ["dense", "static"]'
    )


class Tables(PluginSettings):
    models: dict[str, dict[str, Any]] = Field(default_factory=dict)
    datasets: dict[str, dict[str, Any]] = Field(default_factory=dict)
    sparsifiers: dict[str, dict[str, Any]] = Field(default_factory=dict)
    extractors: dict[str, dict[str, Any]] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    evaluation: dict[str, Any] = Field(default_factory=dict)


class TaskTables(Tables):
    model: str = Field(description="name a model plugin")
    dataset: str = Field(description="name a dataset plugin")


class RunTables(Tables):
    execution: dict[str, Any] = Field(default_factory=dict)
    executors: dict[str, dict[str, Any]] = Field(default_factory=dict)


class PresetTables(RunTables):
    grid: dict[str, Any] = Field(default_factory=dict)


class FileTables(RunTables):
    name: Annotated[str, AfterValidator(check_name)] = Field(
        description="results are kept in a folder of this name"
    )
    grid: GridTable = Field(description="a table with seeds, sparsities and sparsifiers")
    tasks: Annotated[tuple[TaskTables, ...], NotEmpty] = Field(
        description="at least one [[tasks]] with a model and a dataset"
    )
    presets: dict[str, PresetTables] = Field(default_factory=dict)
