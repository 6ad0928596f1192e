"""The plugins that a benchmark file names."""

from __future__ import annotations

from typing import Any, NamedTuple

from dstbench.errors import PluginError
from dstbench.grid.problems import AsWritten, Problems
from dstbench.plugins.plugin import Kind
from dstbench.plugins.registry import Plugins


class Broken:
    """What stands for the class of a plugin that could not be loaded."""

    Settings = AsWritten
    kind = accepts = None


class Found(NamedTuple):
    """A plugin that a file names."""

    cls: type[Any]
    origin: str


class Finder:
    """Finds plugins; those that there are not are noted as problems."""

    def __init__(self, plugins: Plugins, problems: Problems) -> None:
        self._plugins = plugins
        self._problems = problems

    def find(self, kind: Kind, name: str, mentioned_at: str) -> Found:
        try:
            plugin = self._plugins.get(kind, name)
        except PluginError as error:
            self._problems.add(mentioned_at, str(error))
            return Found(Broken, "")
        return Found(plugin.cls or Broken, plugin.origin)
