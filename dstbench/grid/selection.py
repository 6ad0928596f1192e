"""Some of a grid's cells, by what they are: ``model=ldm``, ``sparsity=0.5,0.9``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dstbench.cell import Cell
from dstbench.errors import ConfigError, did_you_mean

KEYS: dict[str, Callable[[str], Any]] = {
    "model": str,
    "dataset": str,
    "sparsifier": str,
    "sparsity": float,
    "seed": int,
}
"""What cells are selected by, and how its values are read."""


def select(cells: Sequence[Cell], only: Sequence[str], skip: Sequence[str]) -> list[Cell]:
    """The cells that ``only`` names and ``skip`` does not, in their order.

    Both are lists of ``KEY=VALUE[,VALUE…]``. A cell is among ``only`` if each key that is named
    there has one of the values named for it; all cells are if there are none. It is among ``skip``
    if any key has.

    Raises:
        ConfigError: for an unknown key, a value that no cell has, and where no cell is left.
    """
    wanted = _values(cells, "--only", only)
    unwanted = _values(cells, "--skip", skip)
    selected = [
        cell
        for cell in cells
        if all(getattr(cell, key) in values for key, values in wanted.items())
        and not any(getattr(cell, key) in values for key, values in unwanted.items())
    ]
    if cells and not selected:
        options = [f"--only {each}" for each in only] + [f"--skip {each}" for each in skip]
        there_are = "; ".join(f"{key} {', '.join(_known(cells, key))}" for key in KEYS)
        raise ConfigError(f"no cell is left by {' '.join(options)}; there are: {there_are}")
    return selected


def sparsifiers_named(only: Sequence[str]) -> list[str]:
    """The sparsifiers that ``only`` names, which need not be those of a grid.

    Raises :class:`ConfigError` for what is not ``KEY=VALUE[,VALUE…]``, and an unknown key.
    """
    named = (value for _, key, value in _parsed("--only", only) if key == "sparsifier")
    return list(dict.fromkeys(named))


def _values(cells: Sequence[Cell], option: str, criteria: Sequence[str]) -> dict[str, set[Any]]:
    """The values that the criteria name, by key."""
    named: dict[str, set[Any]] = {}
    for criterion, key, value in _parsed(option, criteria):
        named.setdefault(key, set()).add(_read(cells, criterion, key, value))
    return named


def _parsed(option: str, criteria: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Each criterion as it was given, its key, and one of its values."""
    for criterion in criteria:
        key, equals, values = criterion.partition("=")
        if not equals:
            raise ConfigError(f"{option} {criterion}: should be KEY=VALUE, such as model=ldm")
        if key not in KEYS:
            raise ConfigError(f"{option} {criterion}: unknown key; {did_you_mean(key, KEYS)}")
        for value in values.split(","):
            yield f"{option} {criterion}", key, value.strip()


def _read(cells: Sequence[Cell], criterion: str, key: str, text: str) -> Any:
    try:
        value = KEYS[key](text)
    except ValueError:
        value = None
    if not any(getattr(cell, key) == value for cell in cells):
        hint = did_you_mean(text, _known(cells, key))
        raise ConfigError(f"{criterion}: no cell has {key} '{text}'; {hint}")
    return value


def _known(cells: Sequence[Cell], key: str) -> list[str]:
    """The values of the key that cells have, in their order."""
    values = dict.fromkeys(getattr(cell, key) for cell in cells)
    return [f"{value:g}" if key == "sparsity" else str(value) for value in values]
