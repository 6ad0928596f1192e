"""The axes that lists of settings make, and settings for high sparsities alone."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter

from dstbench.grid.benchmark import SettingsFrom
from dstbench.grid.problems import Problems
from dstbench.grid.schema import unique
from dstbench.grid.tables import Table, dotted
from dstbench.plugins.isolation import FAILURES
from dstbench.settings import PluginSettings

FROM = "from"
"""The key of settings for high sparsities: no plugin can have a setting of that name."""


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


def axes_from(
    schema: type[PluginSettings], table: Table, problems: Problems
) -> tuple[SettingsFrom, ...]:
    """A plugin's settings at high sparsities, in ascending order.

    The table's array ``from`` holds tables that each name a ``sparsity``, and the settings which
    are others from it on.
    """
    entries = table.values.get(FROM, [])
    if not (isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)):
        header = f"[[{dotted((*table.path, FROM))}]]"
        problems.note(table.locate((FROM,)), f"should be tables, each beginning with {header}")
        return ()
    levels: dict[float, int] = {}
    for index, entry in enumerate(entries):
        least = entry.get("sparsity")
        is_fraction = isinstance(least, int | float) and 0 < least < 1
        if not is_fraction or least in levels:
            told = json.dumps(least, ensure_ascii=False, default=str)
            given = "is given twice" if is_fraction else f"is {told}"
            problems.note(
                table.locate((FROM, index, "sparsity")),
                f"{given}; it should be the sparsity, between 0 and 1, from which on the settings "
                "of this table count",
            )
        else:
            levels[least] = index
    found = []
    table = table.without(FROM)
    for least, index in sorted(levels.items()):
        changed = {key: value for key, value in entries[index].items() if key != "sparsity"}
        table = table.overlaid(changed, (*table.locate((FROM,)), index))
        found.append(SettingsFrom(float(least), axes(schema, table, problems)))
    return tuple(found)


def _is_scalar(schema: type[PluginSettings], key: str) -> bool:
    """Whether the setting takes one value, so that a list of them makes an axis."""
    annotation: Any = schema.model_fields[key].annotation
    try:
        json_schema = TypeAdapter(annotation).json_schema()
    except FAILURES:  # a type of the plugin's own, and so is what a list of them means
        return False
    options = [json_schema, *json_schema.get("anyOf", [])]
    return not any(option.get("type") == "array" for option in options)
