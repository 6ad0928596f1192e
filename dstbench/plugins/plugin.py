"""A plugin, and what its class has to be."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any, Literal, Self

from dstbench.cache import digest
from dstbench.cell import RESERVED
from dstbench.contracts import Dataset, Executor, FeatureExtractor, Metric, Model, Tracker
from dstbench.errors import PluginError
from dstbench.plugins.describe import summary
from dstbench.plugins.packages import missing
from dstbench.settings import PluginSettings

Kind = Literal[
    "model",
    "dataset",
    "sparsifier",
    "feature extractor",
    "metric",
    "executor",
    "tracker",
    "listener",
]
"""The kinds of plugins; a listener is a module, all others are classes."""

State = Literal["ok", "broken", "switched off"]


@dataclass(frozen=True)
class Plugin:
    """One line of ``dstbench plugins``: a class that was plugged in, a module that listens, or one
    that was not plugged in."""

    name: str
    """The name in the class; of a module, that of its entry point."""
    kind: Kind | None
    """``None`` where nothing was loaded."""
    distribution: str
    version: str
    state: State
    summary: str = ""
    """First line of the docstring; last line of a broken plugin's traceback."""
    traceback: str | None = None
    cls: type[Any] | None = None
    error: BaseException | None = None
    """What a broken plugin raised."""
    needs: tuple[str, ...] = ()
    """What pip is to install before it can be used."""

    @classmethod
    def usable(cls, found: type[Any], kind: Kind, distribution: str, version: str) -> Self:
        """A class that was plugged in."""
        needs = tuple(missing(getattr(found, "packages", {})))
        name: str = found.name
        return cls(name, kind, distribution, version, "ok", summary(found), cls=found, needs=needs)

    @property
    def origin(self) -> str:
        """Distribution and version: ``"dstbench 0.1.0"``."""
        return f"{self.distribution} {self.version}"

    def as_dict(self) -> dict[str, Any]:
        """Everything but the objects, for JSON."""
        return {k: value for k, value in vars(self).items() if k not in ("cls", "error")}


LONGEST_NAME = 64
"""Characters of a name: those of a model, a dataset and a sparsifier stand in one file name."""


def check_name(name: str) -> str:
    """``name``, if it can be part of a path. Raises :class:`ValueError` otherwise."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name):
        raise ValueError(
            f"{name!r} is not a name: use lower-case letters, digits, '_', '.' and '-', "
            "with a letter or digit first"
        )
    if len(name) > LONGEST_NAME:
        raise ValueError(f"{name[:20]!r}… has {len(name)} characters; at most {LONGEST_NAME} fit")
    return name


def check_class(kind: Kind, cls: Any) -> None:
    """Raise :class:`PluginError` if the harness could not use ``cls``."""
    if not isinstance(cls, type):
        raise PluginError(f"a hook returned {cls!r} among its {kind}s; it should return classes")
    where = f"{cls.__module__}.{cls.__qualname__}"
    words = {"model": ("name", "accepts"), "dataset": ("name", "kind")}.get(kind, ("name",))
    for word in words:
        if not isinstance(getattr(cls, word, None), str):
            raise PluginError(f"{where} has no '{word}' (a string, in the body of the class)")
    if missing := _undefined(kind, cls):
        raise PluginError(f"{where} does not define {missing}")
    if kind == "metric" and not getattr(cls, "quantities", ()):
        raise PluginError(f"{where} has no 'quantities' (of Quantity, in the body of the class)")
    name: str = cls.name  # type: ignore[attr-defined]
    try:
        check_name(name)
    except ValueError as error:
        raise PluginError(f"{where}: {error}") from None
    if kind == "sparsifier" and name in RESERVED:
        raise PluginError(f"{where}: '{name}' is the name of {RESERVED[name]}; choose another")
    settings = getattr(cls, "Settings", None)
    if not (isinstance(settings, type) and issubclass(settings, PluginSettings)):
        raise PluginError(f"{where}.Settings is not a class derived from PluginSettings")


def _undefined(kind: Kind, cls: type[Any]) -> str:
    """The required members that a class lacks, in words; empty where it has all of them."""
    missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
    if kind != "model" or not issubclass(cls, Model) or _overrides(cls, "outline"):
        return missing
    derived = ("build", "example", "calls_per_sample")
    if all(_overrides(cls, name) for name in derived):
        return missing
    return f"{missing}{' and ' if missing else ''}outline (or, in its place, {', '.join(derived)})"


def _overrides(cls: type[Model], name: str) -> bool:
    return inspect.getattr_static(cls, name) is not inspect.getattr_static(Model, name)


def plugin_of(cls: type[Any]) -> Plugin:
    """A class that no distribution brings, as a plugin.

    Raises :class:`PluginError` for a class that is none.
    """
    from dstbench.sparsity import Sparsifier

    bases: dict[type[Any], Kind] = {
        Model: "model",
        Dataset: "dataset",
        Sparsifier: "sparsifier",
        FeatureExtractor: "feature extractor",
        Metric: "metric",
        Executor: "executor",
        Tracker: "tracker",
    }
    kinds = [
        kind for base, kind in bases.items() if isinstance(cls, type) and issubclass(cls, base)
    ]
    if not kinds:
        names = ", ".join(base.__name__ for base in bases)
        raise PluginError(f"{cls!r} is no plugin: a class derived from one of {names} would be")
    check_class(kinds[0], cls)
    version = digest({"source": _source(cls)})[:12]
    return Plugin.usable(cls, kinds[0], cls.__module__, version)


def _source(cls: type[Any]) -> list[str]:
    """The code of the class, and of those of its bases that stand beside it."""
    own = [base for base in cls.__mro__ if base.__module__ == cls.__module__]
    try:
        return [inspect.getsource(base) for base in own]
    except (OSError, TypeError):
        raise PluginError(
            f"the source of {cls.__qualname__} cannot be read, by which results of it are told "
            "apart from those of another version; define it in a file or in a notebook"
        ) from None
