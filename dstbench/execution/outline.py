"""A cell's denoiser, as far as its settings tell of it without data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from dstbench.cell import SMALL_DENSE, Cell
from dstbench.contracts import Dataset, Items, Model, Outline
from dstbench.counting.narrowing import narrowed
from dstbench.counting.outlines import outline_on
from dstbench.errors import PluginError
from dstbench.plugins.registry import Plugins


@dataclass(frozen=True)
class Undertaking:
    """A model, and the items it is to learn."""

    model: type[Model]
    settings: Any
    items: Items

    def outline(self, device: torch.device) -> Outline:
        """The denoiser, made on that device.

        Raises :class:`~dstbench.errors.PluginError` for a model that needs data to tell.
        """
        return outline_on(device, self.model, self.settings, self.items)

    def of(self, cell: Cell) -> Undertaking:
        """The same, as that cell trains it: a narrower network, of a ``small-dense`` cell."""
        if cell.sparsifier != SMALL_DENSE:
            return self
        return replace(
            self, settings=narrowed(self.model, self.settings, self.items, cell.sparsity)
        )


def undertaking(cell: Cell, plugins: Plugins) -> Undertaking:
    """What a cell's model is to learn, before it is made narrower.

    Raises :class:`~dstbench.errors.PluginError` for a dataset that is to be loaded before it tells.
    """
    dataset: type[Dataset] = plugins.find("dataset", cell.dataset)
    model: type[Model] = plugins.find("model", cell.model)
    items = dataset(dataset.Settings(**cell.dataset_settings)).outline()
    if items is None:
        raise PluginError(
            f"dataset '{cell.dataset}' does not tell the shape of its items before it is "
            "loaded (it has no 'outline')"
        )
    return Undertaking(model, model.Settings(**cell.model_settings), items)


def parameters(cell: Cell, plugins: Plugins) -> int:
    """Number of parameters of a cell's denoiser.

    Raises what its plugins raise, and :class:`~dstbench.errors.PluginError` where they need data
    to tell.
    """
    task = undertaking(cell, plugins).of(cell)
    denoiser = task.outline(torch.device("meta")).denoiser
    return sum(parameter.numel() for parameter in denoiser.parameters())
