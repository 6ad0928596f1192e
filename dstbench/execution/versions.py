"""The versions of plugins that a cell names, and those that are installed."""

from __future__ import annotations

from dstbench.cell import Cell
from dstbench.errors import PluginError
from dstbench.plugins.plugin import Kind
from dstbench.plugins.registry import Plugins


def require_versions(cell: Cell, plugins: Plugins) -> None:
    """Raise :class:`PluginError` where the installed plugins are of other versions than those that
    the cell names."""
    kinds: tuple[Kind, ...] = ("model", "dataset", "sparsifier", "feature extractor")
    if differences := other_versions(cell, plugins, *kinds):
        raise PluginError(f"the cell is to be run with {'; '.join(differences)}")


def other_versions(cell: Cell, plugins: Plugins, *kinds: Kind) -> list[str]:
    """The cell's plugins of these kinds that are installed in another version, in words."""
    names: dict[Kind, str] = {
        "model": cell.model,
        "dataset": cell.dataset,
        "sparsifier": cell.sparsifier,
        "feature extractor": cell.evaluation_settings.extractor,
    }
    return [
        f"{kind} '{names[kind]}' of {version}, but {installed} is installed"
        for kind in kinds
        if (version := cell.versions.get(kind))
        and (installed := plugins.get(kind, names[kind]).origin) != version
    ]
