"""What sets cells apart from others of their task and method, in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from dstbench.cache import canonical
from dstbench.cell import Cell


def variants(cells: Sequence[Cell]) -> dict[str, str]:
    """The settings (or version) that set each cell apart from others of its task and sparsifier,
    such as ``"prune_rate=0.05"``, by its id; empty where there are none."""
    alike: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        alike.setdefault((cell.task, cell.sparsifier), []).append(cell)
    return {
        cell.id: variant
        for group in alike.values()
        for cell, variant in zip(group, distinctions([c.settings for c in group]), strict=True)
    }


def distinctions(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """What sets each of several settings apart from the others: ``"prune_rate=0.05"``.

    A version, kept under ``versions``, needs no key: ``"dstbench 0.1.0"``.
    """
    texts = [canonical(each) for each in settings]
    different = dict(zip(texts, settings, strict=True))  # of thousands of cells, a few
    found = dict(zip(different, _distinctions(list(different.values())), strict=True))
    return [found[text] for text in texts]


def _distinctions(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    flat = [dict(leaves(each)) for each in settings]
    varying = [
        path
        for path in dict.fromkeys(chain.from_iterable(flat))
        if len({each.get(path) for each in flat}) > 1
    ]
    return [
        ", ".join(
            # A setting and what the protocol made of it are often the same words: say them once.
            dict.fromkeys(_in_words(path, each[path]) for path in varying if path in each)
        )
        for each in flat
    ]


def _in_words(path: tuple[str, ...], value: str) -> str:
    return value if path[0] == "versions" else f"{path[-1]}={value}"


def leaves(
    settings: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each setting by its path, as text: JSON of all that is none."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value if isinstance(value, str) else json.dumps(value)
