"""Discovery of plugins: from entry points to classes by kind and name."""

from __future__ import annotations

import inspect
import json
import os
import re
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pluggy import PluginManager, PluginValidationError
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dstbench import hookspecs
from dstbench.contracts import PluginSettings
from dstbench.errors import PluginError
from dstbench.failures import FAILURES
from dstbench.grid import DENSE
from dstbench.hints import did_you_mean

__all__ = ["PINS"]  # all that plugins need of it

GROUP = "dstbench"
PINS = "DSTBENCH_PLUGINS"

Kind = Literal["model", "dataset", "sparsifier", "feature extractor", "executor"]
State = Literal["ok", "broken", "switched off"]

_HOOKS: dict[str, Kind] = {
    "dstbench_models": "model",
    "dstbench_datasets": "dataset",
    "dstbench_sparsifiers": "sparsifier",
    "dstbench_feature_extractors": "feature extractor",
    "dstbench_executors": "executor",
}
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


@dataclass(frozen=True)
class Plugin:
    """One line of ``dstbench plugins``: a class that was plugged in, or a module that was not."""

    name: str
    """The class's name; the entry point's, where nothing was loaded from it."""
    kind: Kind | None
    """``None`` where nothing was loaded."""
    distribution: str
    version: str
    state: State
    summary: str = ""
    """First line of the class's docstring; last line of a broken plugin's traceback."""
    traceback: str | None = None
    cls: type[Any] | None = None
    error: BaseException | None = None
    """What a broken plugin raised."""

    @property
    def origin(self) -> str:
        """Distribution and version: ``"dstbench 0.1.0"``."""
        return f"{self.distribution} {self.version}"

    def as_dict(self) -> dict[str, str | None]:
        """Everything but the objects, for JSON."""
        return {k: value for k, value in vars(self).items() if k not in ("cls", "error")}


class Plugins:
    """What is plugged in.

    ``manager`` is pluggy's: ``manager.hook.dstbench_step(...)`` tells all listeners, and
    ``manager.register(...)`` adds one.
    """

    def __init__(self) -> None:
        self.manager = PluginManager("dstbench")
        self.manager.add_hookspecs(hookspecs)
        self.listing: list[Plugin] = []

    def names(self, kind: Kind) -> list[str]:
        """The names that :meth:`find` knows."""
        return sorted(plugin.name for plugin in self.listing if plugin.kind == kind)

    def find(self, kind: Kind, name: str) -> type[Any]:
        """The class of this kind and name.

        Raises :class:`PluginError` if there is none, or if it is broken: because of what broke it.
        """
        plugin = self.get(kind, name)
        if plugin.cls is None:
            raise PluginError(
                f"{kind} '{name}' of {plugin.origin} is broken: {plugin.summary}"
            ) from plugin.error
        return plugin.cls

    def get(self, kind: Kind, name: str) -> Plugin:
        """The plugin of this kind and name; else the broken one whose entry point has this name,
        which nobody knows the kind of.

        Raises :class:`PluginError` if there is neither.
        """
        named = [plugin for plugin in self.listing if plugin.name == name]
        usable = [plugin for plugin in named if plugin.kind == kind or plugin.state == "broken"]
        if usable:
            return min(usable, key=lambda plugin: plugin.state == "broken")
        for plugin in named:
            if plugin.state == "switched off":
                raise PluginError(
                    f"{kind} '{name}': the plugin '{name}' of {plugin.origin} is switched off, "
                    f"because {PINS} does not list it"
                )
        known = [*self.names(kind), *([DENSE] if kind == "sparsifier" else [])]
        raise PluginError(f"unknown {kind} '{name}'; {did_you_mean(name, known)}{self._missing()}")

    def named(self, name: str) -> list[Plugin]:
        """All plugins of this name, whatever their kind or state.

        Raises :class:`PluginError` if there is none.
        """
        found = [plugin for plugin in self.listing if plugin.name == name]
        if not found:
            known = (plugin.name for plugin in self.listing)
            raise PluginError(f"unknown plugin '{name}'; {did_you_mean(name, known)}")
        return found

    def _missing(self) -> str:
        """Why a name may be unknown although its plugin is installed."""
        states: tuple[State, ...] = ("broken", "switched off")
        names = {s: [p.name for p in self.listing if p.state == s] for s in states}
        notes = [f"{state}: {', '.join(names[state])}" for state in states if names[state]]
        return f"; not loaded ('dstbench plugins' says why): {'; '.join(notes)}" if notes else ""

    def _load(self, entry_point: metadata.EntryPoint) -> None:
        """Load one plugin module: its classes are listed, or it is, as broken."""
        distribution, version = _origin(entry_point)
        module_name = f"{entry_point.name} of {distribution}"
        try:
            module = entry_point.load()
            self.manager.register(module, name=module_name)
            found = [
                Plugin(cls.name, kind, distribution, version, "ok", _summary(cls), cls=cls)
                for kind, cls in self._classes(module)
            ]
        except FAILURES as error:
            if self.manager.has_plugin(module_name):
                self.manager.unregister(name=module_name)
            text = traceback.format_exc()
            last_line = text.strip().splitlines()[-1]
            broken = Plugin(
                entry_point.name,
                None,
                distribution,
                version,
                "broken",
                last_line,
                text,
                error=error,
            )
            self.listing.append(broken)
            return
        self._refuse_unknown_hooks(module_name)
        for plugin in found:
            self._refuse_second(plugin)
            self.listing.append(plugin)

    def _classes(self, module: object) -> Iterator[tuple[Kind, type[Any]]]:
        callers = self.manager.get_hookcallers(module)
        if not callers:
            raise PluginError(
                "no hook found: mark the plugin's functions with @dstbench.hookimpl and name them "
                f"after a hook ({', '.join(_hook_names())})"
            )
        for caller in callers:
            if kind := _HOOKS.get(caller.name):
                for implementation in caller.get_hookimpls():
                    if implementation.plugin is module:
                        classes: Any = implementation.function()
                        for cls in classes:
                            _check_class(kind, cls)
                            yield kind, cls

    def _refuse_unknown_hooks(self, module_name: str) -> None:
        try:
            self.manager.check_pending()
        except PluginValidationError as error:
            callers = self.manager.get_hookcallers(error.plugin) or []
            unknown = next(caller.name for caller in callers if not caller.has_spec())
            raise PluginError(
                f"plugin {module_name}: unknown hook '{unknown}'; "
                f"{did_you_mean(unknown, _hook_names())}; "
                f"correct it, or leave the plugin out with {PINS}"
            ) from None

    def _refuse_second(self, plugin: Plugin) -> None:
        for other in self.listing:
            if (other.kind, other.name) == (plugin.kind, plugin.name):
                raise PluginError(
                    f"two plugins are called {plugin.kind} '{plugin.name}': one of "
                    f"{other.origin}, one of {plugin.origin}; uninstall one, or choose with {PINS}"
                )


def load_plugins() -> Plugins:
    """Load the modules behind the entry points of group ``dstbench``.

    Where the environment variable ``DSTBENCH_PLUGINS`` is set, it lists (comma-separated) the
    entry points to load besides dstbench's own; empty means none.

    A module that cannot be loaded, or whose classes lack what a plugin needs, is listed as broken.
    Raises :class:`PluginError` for two plugins of one kind and name, an unknown hook, and a name
    in ``DSTBENCH_PLUGINS`` that is not installed.
    """
    plugins = Plugins()
    entry_points = sorted(metadata.entry_points(group=GROUP), key=_own_first)
    pins = _pins({entry_point.name for entry_point in entry_points})
    for entry_point in entry_points:
        if _is_own(entry_point) or pins is None or entry_point.name in pins:
            plugins._load(entry_point)
        else:
            distribution, version = _origin(entry_point)
            plugins.listing.append(
                Plugin(entry_point.name, None, distribution, version, "switched off")
            )
    return plugins


def check_name(name: str) -> str:
    """``name``, if it can be part of a path. Raises :class:`ValueError` otherwise."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name):
        raise ValueError(
            f"{name!r} is not a name: use lower-case letters, digits, '_', '.' and '-', "
            "with a letter or digit first"
        )
    return name


class Setting(NamedTuple):
    """One field of a plugin's ``Settings``, in words."""

    name: str
    type: str
    default: str
    """As it would be written in a benchmark; ``required`` or ``none``."""
    meaning: str


def describe(cls: type[Any]) -> str:
    """The class's docstring as plain text, without Sphinx's markup."""
    text = inspect.cleandoc(cls.__doc__ or "")
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"\1", text)
    return re.sub(r"\*(\S[^*]*)\*|``", r"\1", text)


def describe_settings(settings: type[BaseModel], prefix: str = "") -> list[Setting]:
    """The fields of a ``Settings`` class, in the order of their declaration.

    Fields of nested settings are named as in ``autoencoder.steps``.
    """
    described = []
    for name, field in settings.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            described += describe_settings(nested, f"{prefix}{name}.")
        else:
            meaning = field.description or ""
            described.append(Setting(prefix + name, _type(field), _default(field), meaning))
    return described


def _type(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {getattr(constraint, bound):g}"
        for constraint in field.metadata
        for bound, sign in _BOUNDS.items()
        if hasattr(constraint, bound)
    ]
    return ", ".join([_in_words(field.annotation), *bounds])


def _in_words(annotation: Any) -> str:
    """A type as one writes it, without the constraints on its parts."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Ellipsis:
        return "..."
    if origin is Annotated:
        return _in_words(arguments[0])
    if origin is Literal:
        return " | ".join(json.dumps(argument, default=str) for argument in arguments)
    names = [_in_words(argument) for argument in arguments]
    if origin in (Union, UnionType):
        return " | ".join(names)
    if origin is not None:
        return f"{origin.__name__}[{', '.join(names)}]"
    return "None" if annotation is type(None) else getattr(annotation, "__name__", str(annotation))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    try:
        value = field.get_default(call_default_factory=True, validated_data={})
    except FAILURES as error:  # a factory may need other settings, or fail
        return f"not known ({type(error).__name__})"
    return "none" if value is None else json.dumps(value, default=str, ensure_ascii=False)


def _check_class(kind: Kind, cls: Any) -> None:
    """Raise :class:`PluginError` if the harness could not use ``cls``."""
    if not isinstance(cls, type):
        raise PluginError(f"a hook returned {cls!r} among its {kind}s; it should return classes")
    where = f"{cls.__module__}.{cls.__qualname__}"
    words = {"model": ("name", "accepts"), "dataset": ("name", "kind")}.get(kind, ("name",))
    for word in words:
        if not isinstance(getattr(cls, word, None), str):
            raise PluginError(f"{where} has no '{word}' (a string, in the body of the class)")
    if missing := getattr(cls, "__abstractmethods__", None):
        raise PluginError(f"{where} does not define {', '.join(sorted(missing))}")
    name: str = cls.name  # type: ignore[attr-defined]
    try:
        check_name(name)
    except ValueError as error:
        raise PluginError(f"{where}: {error}") from None
    if kind == "sparsifier" and name == DENSE:
        raise PluginError(f"{where}: '{DENSE}' is the name of the reference; choose another")
    settings = getattr(cls, "Settings", None)
    if not (isinstance(settings, type) and issubclass(settings, PluginSettings)):
        raise PluginError(f"{where}.Settings is not a class derived from PluginSettings")


def _summary(cls: type[Any]) -> str:
    return describe(cls).partition("\n")[0]


def _hook_names() -> list[str]:
    return [name for name in vars(hookspecs) if name.startswith("dstbench_")]


def _origin(entry_point: metadata.EntryPoint) -> tuple[str, str]:
    """Name and version of its distribution, whose files may be half removed."""
    distribution = entry_point.dist
    if distribution is None:
        return "unknown", "unknown"
    return distribution.name or "unknown", distribution.version or "unknown"


def _is_own(entry_point: metadata.EntryPoint) -> bool:
    return _origin(entry_point)[0] == "dstbench"


def _own_first(entry_point: metadata.EntryPoint) -> tuple[bool, str, str]:
    return not _is_own(entry_point), _origin(entry_point)[0], entry_point.name


def _pins(known: set[str]) -> set[str] | None:
    value = os.environ.get(PINS)
    if value is None:
        return None
    pins = {name.strip() for name in value.split(",")} - {""}
    for name in sorted(pins - known):
        raise PluginError(f"{PINS} names '{name}'; {did_you_mean(name, known)}")
    return pins
