"""The axes that lists of settings make."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter

from dstbench.grid.problems import Problems
from dstbench.grid.schema import unique
from dstbench.grid.tables import Table
from dstbench.plugins.isolation import FAILURES
from dstbench.settings import (
    PluginSettings,
)


def axes(
    schema: type[PluginSettings], table: Table, problems: Problems
) -> tuple[PluginSettings, ...]:
    """A plugin's settings for each combination of the values of its axes: settings that take one
    value, and for which the table has a list."""
    lists = {
        key: value
        for key, value in table.values.items()
        if isinstance(value, list) and key in schema.model_fields and _is_scalar(schema, key)
    }
    for key, values in lists.items():
        try:
            unique(tuple(values))
        except ValueError as error:
            problems.note(table.locate((key,)), str(error))
        if not values:
            problems.note(table.locate((key,)), "is an empty list; name at least one value")
    return tuple(
        problems.validate_plugin(
            schema, replace(table, values=table.values | dict(zip(lists, values, strict=True)))
        )
        for values in itertools.product(*lists.values())
    )


def _is_scalar(schema: type[PluginSettings], key: str) -> bool:
    """Whether the setting takes one value, so that a list of them makes an axis."""
    annotation: Any = schema.model_fields[key].annotation
    try:
        json_schema = TypeAdapter(annotation).json_schema()
    except FAILURES:  # a type of the plugin's own, and so is what a list of them means
        return False
    options = [json_schema, *json_schema.get("anyOf", [])]
    return not any(option.get("type") == "array" for option in options)
