"""The tables of a benchmark file, laid over each other, and where each key stands."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

KeyPath = tuple[str | int, ...]
"""Keys from the top of the file down; an integer is a position in an array, from 0."""


@dataclass(frozen=True)
class Table:
    """The settings of one thing, and where in the file each of them stands."""

    path: KeyPath
    values: dict[str, Any]
    paths: dict[KeyPath, KeyPath] = field(default_factory=dict)

    def locate(self, location: KeyPath) -> KeyPath:
        for end in range(len(location), 0, -1):
            if location[:end] in self.paths:
                return (*self.paths[location[:end]], *location[end:])
        return (*self.path, *location)

    def overlaid(self, values: Mapping[str, Any], path: KeyPath) -> Table:
        """A table with these values, which stand at ``path`` in the file, over its own."""
        table = Table(self.path, deepcopy(self.values), dict(self.paths))
        _overlay(table, table.values, values, path, ())
        return table

    def without(self, key: str) -> Table:
        """The table less one of its keys."""
        return replace(self, values={k: v for k, v in self.values.items() if k != key})


def over(preset: str | None) -> tuple[KeyPath, ...]:
    """The place of a preset's tables in the file; nothing where there is no preset."""
    return () if preset is None else (("presets", preset),)


def table_at(data: Mapping[str, Any], starts: Iterable[KeyPath], *keys: str) -> Table:
    """What a file says under these keys from each of the starts, later ones over earlier."""
    table = Table(keys, {})
    for start in starts:
        node: Any = data
        for key in start:
            node = node[key]
        for key in keys:
            node = node.get(key, {})
        _overlay(table, table.values, node, (*start, *keys), ())
    return table


def _overlay(
    table: Table, values: dict[str, Any], top: Mapping[str, Any], path: KeyPath, location: KeyPath
) -> None:
    """Put what stands at ``path`` in the file over the table's values at ``location``."""
    for key, value in top.items():
        here = (*location, key)
        table.paths[here] = (*path, key)
        if isinstance(value, Mapping):
            values[key] = nested = values[key] if isinstance(values.get(key), dict) else {}
            _overlay(table, nested, value, (*path, key), here)
        else:
            values[key] = value


class TomlLines:
    """The lines of a file's table headers and keys.

    A search, not a parser: what stands inside a value is found at the line of its key.
    """

    def __init__(self, text: str) -> None:
        self._lines: dict[KeyPath, int] = {}
        table: KeyPath = ()
        last: dict[KeyPath, int] = {}  # position of the last table of each array
        for number, line in enumerate(text.splitlines(), start=1):
            header = line.lstrip()
            if header.startswith("["):
                if keys := _keys(line):
                    is_array = header.startswith("[[")
                    table = _resolve(keys[:-1], last) if is_array else _resolve(keys, last)
                    if is_array:
                        array = (*table, keys[-1])
                        last[array] = last.get(array, -1) + 1
                        table = (*array, last[array])
                    self._lines.setdefault(table, number)
            elif "=" in line and (keys := _keys(f"{line.split('=')[0]}= 0")):
                self._lines.setdefault((*table, *keys), number)

    def find(self, path: KeyPath) -> int | None:
        """The line (from 1) of the key, or of the innermost table or value around it."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path)


def dotted(path: KeyPath) -> str:
    """The path as one reads it: ``tasks[0].training.steps``."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(parts).removeprefix(".")


def _resolve(keys: list[str], last: dict[KeyPath, int]) -> KeyPath:
    """The path of a header: where a key names an array of tables, its last one is meant."""
    path: KeyPath = ()
    for key in keys:
        path = (*path, key)
        if path in last:
            path = (*path, last[path])
    return path


def _keys(line: str) -> list[str]:
    """The keys in a table header or in ``a.b = 0``; none if it is neither."""
    try:
        node = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return []
    keys = []
    while isinstance(node, dict) and node:
        ((key, value),) = node.items()
        keys.append(key)
        node = value[0] if isinstance(value, list) else value
    return keys
