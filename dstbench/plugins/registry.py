"""Discovery of plugins: from entry points to classes by kind and name."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any

from pluggy import PluginManager, PluginValidationError

from dstbench.cell import RESERVED
from dstbench.errors import PluginError, did_you_mean
from dstbench.plugins import hookspecs
from dstbench.plugins.describe import summary
from dstbench.plugins.isolation import FAILURES
from dstbench.plugins.plugin import Kind, Plugin, State, check_class, plugin_of

__all__ = ["PINS"]  # all that plugins need of it

GROUP = "dstbench"
PINS = "DSTBENCH_PLUGINS"
"""The environment variable that lists the entry points to load besides dstbench's own."""


_HOOKS: dict[str, Kind] = {
    "dstbench_models": "model",
    "dstbench_datasets": "dataset",
    "dstbench_sparsifiers": "sparsifier",
    "dstbench_feature_extractors": "feature extractor",
    "dstbench_metrics": "metric",
    "dstbench_executors": "executor",
    "dstbench_trackers": "tracker",
}
"""The kinds of classes, by the hook that returns them; all other hooks are events."""


class Plugins:
    """What is plugged in.

    ``manager`` is pluggy's: ``manager.hook.dstbench_step(...)`` tells all listeners, and
    ``manager.register(...)`` adds one.
    """

    def __init__(self) -> None:
        self.manager = PluginManager("dstbench")
        self.manager.add_hookspecs(hookspecs)
        self.listing: list[Plugin] = []
        self.given: list[Plugin] = []
        """Plugins that were given as classes, and that no distribution brings."""

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
        known = [*self.names(kind), *(RESERVED if kind == "sparsifier" else [])]
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

    def add(self, given: type[Any] | Plugin) -> None:
        """Plug in a class that no distribution brings, or such a plugin of another process.

        In place of a version, it has a hash of the class's source: after a change, its cells are
        other cells.

        Raises :class:`PluginError` for a class that is no plugin, and where there is another one
        of its kind and name.
        """
        if any(plugin.cls is given for plugin in self.listing):
            return
        plugin = given if isinstance(given, Plugin) else plugin_of(given)
        self._refuse_second(plugin)
        self.listing.append(plugin)
        self.given.append(plugin)

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
                Plugin.usable(cls, kind, distribution, version)
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
        if self._listens(module):
            text, name = summary(module), entry_point.name
            self.listing.append(Plugin(name, "listener", distribution, version, "ok", text))

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
                            check_class(kind, cls)
                            yield kind, cls

    def _listens(self, module: object) -> bool:
        callers = self.manager.get_hookcallers(module) or []
        return any(caller.name not in _HOOKS for caller in callers)

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


def load_plugins(given: Sequence[type[Any] | Plugin] = ()) -> Plugins:
    """Load the modules behind the entry points of group ``dstbench``, and plug in what is given.

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
    for each in given:
        plugins.add(each)
    return plugins


def _hook_names() -> list[str]:
    return [name for name in vars(hookspecs) if name.startswith("dstbench_")]


def _origin(entry_point: metadata.EntryPoint) -> tuple[str, str]:
    """Name and version of its distribution, whose files may be half removed."""
    distribution = entry_point.dist
    try:
        named = distribution and (distribution.name, distribution.version)
    except OSError:  # of importlib_metadata's, which finds them once any library has imported it
        named = None
    name, version = named or (None, None)
    return name or "unknown", version or "unknown"


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
