"""What is wrong with a benchmark file, in words, and where."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from dstbench.errors import ConfigError, did_you_mean
from dstbench.grid.tables import KeyPath, Table, TomlLines, dotted
from dstbench.plugins.isolation import FAILURES
from dstbench.settings import PluginSettings

Schema = TypeVar("Schema", bound=BaseModel)


class AsWritten(PluginSettings):
    """Settings that nobody can check, because their plugin fails; so will its cells."""

    model_config = ConfigDict(extra="allow")


class Problems:
    """Collects what is wrong with a benchmark file, each problem with its place."""

    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._lines = TomlLines(text)
        self._found: dict[str, None] = {}  # a set that keeps its order

    def __bool__(self) -> bool:
        return bool(self._found)

    def note(self, path: KeyPath, what: str) -> None:
        """There is a problem with what stands at ``path``."""
        self.add(self.place(path), what)

    def add(self, place: str, what: str) -> None:
        """There is a problem at that place, in words."""
        self._found[f"{place}: {what}"] = None

    def place(self, path: KeyPath) -> str:
        """File, line and key, as an error message begins."""
        line = self._lines.find(path)
        file = f"{self._file}:{line}" if line else self._file
        return f"{file}: {dotted(path)}" if path else file

    def stop_if_any(self) -> None:
        """Raise :class:`ConfigError` with all problems so far."""
        if self._found:
            raise ConfigError("\n".join(self._found))

    def validate(self, schema: type[Schema], table: Table) -> Schema:
        """The table as an instance of its schema; after a problem, one that is not usable."""
        try:
            # JSON's strict mode is TOML's typing: no "1" for 1, but arrays for tuples.
            return schema.model_validate_json(json.dumps(table.values, default=str), strict=True)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                self.note(table.locate(detail["loc"]), explain(detail, schema))
            return schema.model_construct()

    def validate_plugin(self, schema: type[PluginSettings], table: Table) -> PluginSettings:
        """A plugin's table; its validators are its own and may fail in any way."""
        try:
            settings = self.validate(schema, table)
            settings.model_dump(mode="json")
        except FAILURES:
            return self.validate(AsWritten, table)
        return settings


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
