"""What wrong plugins of every kind have in common."""

from collections.abc import Iterator
from typing import Any, ClassVar


class Wrong:
    """Breaks a promise."""

    caught_by: ClassVar[str]
    """The check that is to catch it."""
    happens: ClassVar[str]
    """Part of the report."""


def all_wrong(kind: type[Any]) -> Iterator[type[Any]]:
    """The wrong plugins of a kind, as far as they are imported."""
    return (cls for cls in _below(Wrong) if issubclass(cls, kind))


def _below(cls: type[Any]) -> Iterator[type[Any]]:
    for below in cls.__subclasses__():
        yield below
        yield from _below(below)
