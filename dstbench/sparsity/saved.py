"""Masks as they are saved, and taken up again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dstbench.errors import SparsityError
from dstbench.sparsity.layers import Layer


def saved_masks(layers: Sequence[Layer]) -> dict[str, Tensor]:
    """The masks of the layers that have inactive weights, by name."""
    return {layer.name: layer.mask for layer in layers if layer.density < 1}


def check_complete(state: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise :class:`SparsityError` where a saved state lacks keys of the ``expected`` one."""
    if missing := expected.keys() - state.keys():
        raise SparsityError(f"the saved state has no {', '.join(sorted(missing))}")


def take_up_masks(layers: Sequence[Layer], saved: Mapping[str, Tensor], total: int) -> None:
    """Give each layer the saved mask of its name, or all connections where none was saved.

    Raises:
        SparsityError: if they are not masks of these layers, with their structure and ``total``
            active connections; no layer has changed then.
    """
    names = {layer.name for layer in layers}
    masks = [saved.get(each.name, torch.ones_like(each.mask)) for each in layers]
    shapes = all(mask.shape == each.mask.shape for mask, each in zip(masks, layers, strict=True))
    active = sum(int(mask.count_nonzero()) for mask in masks)
    if not (shapes and saved.keys() <= names and active == total):
        raise SparsityError("the saved masks are not of this network at this sparsity")
    for layer, mask in zip(layers, masks, strict=True):
        layer.check_structure(mask)
    for layer, mask in zip(layers, masks, strict=True):
        layer.allot(int(mask.count_nonzero()))
        layer.replace_mask(mask)
