"""What a cell's record has a process read from elsewhere, or fetch: it may be a stranger's."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dstbench.cell import Cell
from dstbench.contracts import Workspace
from dstbench.execution.requirements import requirements
from dstbench.plugins.isolation import FAILURES
from dstbench.plugins.plugin import Kind
from dstbench.plugins.registry import Plugins


def outside(cell: Cell, plugins: Plugins, workspace: Workspace) -> list[str]:
    """What its model and its dataset would read from places that the cell names, or download: in
    words, each once."""
    found: list[str] = []
    settings: tuple[tuple[Kind, str, Mapping[str, Any]], ...] = (
        ("dataset", cell.dataset, cell.dataset_settings),
        ("model", cell.model, cell.model_settings),
    )
    for kind, name, given in settings:
        usual = set(_texts(_defaults(plugins.find(kind, name))))
        places = [text for text in _texts(given) if text not in usual and _is_a_place(text)]
        found += [f"{kind} '{name}' reads {place}" for place in places]
    for requirement in requirements([cell]):
        if requirement.kind == "dataset":
            there = requirement.availability(plugins, workspace)
            if there.state == "download":
                found.append(f"dataset '{requirement.name}' is downloaded ({there.detail})")
    return list(dict.fromkeys(found))


def _defaults(plugin: Any) -> Mapping[str, Any]:
    with suppress(*FAILURES):
        defaults: Mapping[str, Any] = plugin.Settings().model_dump(mode="json")
        return defaults
    return {}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, Sequence):
        for each in value:
            yield from _texts(each)


def _is_a_place(text: str) -> bool:
    """Whether a setting may name a file, a folder, or something on the web."""
    if any(sign in text for sign in ("/", os.sep, "$")) or text.startswith(("~", ".")):
        return True
    with suppress(OSError, ValueError):
        return Path(text).exists()
    return False
