"""Settings and surroundings of several cells, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dstbench.grid.variants import leaves


def values(every: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """By its path, what each entry is in all of these, or in some and others."""
    found: dict[str, dict[str, None]] = {}
    for each in every:
        for path, text in leaves(each):
            found.setdefault(".".join(path), {})[text] = None
    return {path: "; ".join(texts) for path, texts in sorted(found.items())}


def differing(
    ours: Mapping[str, str], theirs: Mapping[str, str], missing: str
) -> dict[str, tuple[str, str]]:
    """The entries of two such that are not the same, each of ours and of theirs."""
    names = sorted(ours.keys() | theirs.keys())
    both = {name: (ours.get(name, missing), theirs.get(name, missing)) for name in names}
    return {name: (our, their) for name, (our, their) in both.items() if our != their}
