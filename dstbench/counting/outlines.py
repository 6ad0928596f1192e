"""A model's denoiser, as far as settings and items tell of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from dstbench.errors import PluginError

if TYPE_CHECKING:
    from dstbench.contracts import Items, Model, Outline


def outline_on(
    device: torch.device | str, model: type[Model], settings: Any, items: Items
) -> Outline:
    """A model's outline, its denoiser made on that device.

    Raises :class:`~dstbench.errors.PluginError` for a model that needs data to tell.
    """
    with torch.device(device):
        outline = model.outline(settings, items)
    if outline is None:
        raise PluginError(
            f"model '{model.name}' does not tell its denoiser before it has data "
            "(it has no 'outline', or one that needs to know more)"
        )
    return outline
