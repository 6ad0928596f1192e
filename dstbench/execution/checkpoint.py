"""What is in a checkpoint, packed: of a masked weight, the active values alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dstbench.errors import StoreError
from dstbench.sparsity import Sparsifier
from dstbench.store.packed import ACTIVE, mask_bytes, pack, pack_mask, unpack, unpack_mask

Tensors = Mapping[str, Tensor]


def pack_checkpoint(
    state: dict[str, Any], sparsifier: Sparsifier, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """The state of a training under masks, packed: weights, averaged weights and the optimizer's
    state of them where they are zero outside the mask, and the masks as bits."""
    masks = {layer.name: layer.mask for layer in sparsifier.sparse_layers}
    rest = {key: value for key, value in state["sparsifier"].items() if key != "masks"}
    return {
        **state,
        **_each(pack, state, masks, _positions(sparsifier, optimizer)),
        "sparsifier": rest,
        "masks": {name: pack_mask(mask) for name, mask in masks.items()},
    }


def unpack_checkpoint(
    state: dict[str, Any], sparsifier: Sparsifier, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """The state that :func:`pack_checkpoint` was given; one that was never packed stays as it is.

    Raises:
        KeyError, RuntimeError: for a state of another network.
    """
    if "masks" not in state:
        return state
    like = {layer.name: layer.mask for layer in sparsifier.layers}
    masks = {
        name: torch.empty_like(like[name]).copy_(unpack_mask(bits, like[name].shape))
        for name, bits in state["masks"].items()
    }
    return {
        **state,
        **_each(unpack, state, masks, _positions(sparsifier, optimizer)),
        "sparsifier": state["sparsifier"] | {"masks": masks},
    }


def no_checkpoint(path: Path) -> StoreError:
    """The error of a file that cannot be gone on from."""
    return StoreError(
        f"{path}: this is not a checkpoint of this cell, or it is damaged; delete it to "
        "start the cell from its first step"
    )


def checkpoint_bytes(denoiser: nn.Module, sparsifier: Sparsifier | None) -> int:
    """About the size of a checkpoint: weights, their averages and AdamW's two moments, of masked
    weights the active values alone."""
    state = sum(tensor.nbytes for tensor in denoiser.state_dict().values())
    trained = sum(weight.nbytes for weight in denoiser.parameters() if weight.requires_grad)
    saved: int = 0
    for layer in sparsifier.sparse_layers if sparsifier else ():
        inactive = layer.mask.numel() - int(layer.mask.count_nonzero())
        saved += 4 * inactive * layer.weight.element_size() - mask_bytes(layer.mask.numel())
    return int(2 * (state + trained) - saved)


def _each(
    convert: Callable[[Tensors, Tensors], Tensors],
    state: dict[str, Any],
    masks: Tensors,
    positions: Mapping[int, str],
) -> dict[str, Any]:
    """What has masked weights in it, converted by :func:`pack` or :func:`unpack`."""
    kept = state["optimizer"]["state"]
    of_weights = {
        position: convert(kept[position], _for_each(kept[position], masks[name]))
        for position, name in positions.items()
        if name in masks and position in kept
    }
    return {
        "denoiser": convert(state["denoiser"], masks),
        "averaged": convert(
            state["averaged"], {f"module.{name}": mask for name, mask in masks.items()}
        ),
        "optimizer": state["optimizer"] | {"state": kept | of_weights},
    }


def _for_each(tensors: Tensors, mask: Tensor) -> Tensors:
    return dict.fromkeys((name.removesuffix(ACTIVE) for name in tensors), mask)


def _positions(sparsifier: Sparsifier, optimizer: torch.optim.Optimizer) -> dict[int, str]:
    """The position of each masked weight among the optimizer's, by which its state is kept."""
    names = {id(layer.weight): layer.name for layer in sparsifier.layers}
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    return {at: names[id(weight)] for at, weight in enumerate(weights) if id(weight) in names}
