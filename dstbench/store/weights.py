"""The file of a trained network: safetensors, packed where weights are masked.

Tensors stand under their names in the network's ``state_dict()``. Of a masked weight ``w`` there
are its active values, ``w:active``, and the bits of its mask, ``w:mask``. The file's metadata have
one entry, ``dstbench``: JSON with the ``shapes`` of those weights, in ``shared`` the first name
of a tensor for each further one, and whatever else is to be known of the network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dstbench.store.packed import ACTIVE, pack, pack_mask, unpack, unpack_mask

MASK = ":mask"
"""What is added to the name of a masked weight for the bits of its mask."""

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def write_network(
    path: Path, network: nn.Module, masks: Mapping[str, Tensor], more: Mapping[str, Any] = _NOTHING
) -> int:
    """Write a network; the bytes of its tensors there.

    ``masks`` (bool) are by parameter name; what is not zero outside its mask is written whole.
    ``more`` is what JSON can say, for :func:`read_more`.
    """
    state, shared = _without_repetition(network.state_dict())
    packed = pack(state, masks)
    names = [name for name in masks if name + ACTIVE in packed]
    packed |= {name + MASK: pack_mask(masks[name]) for name in names}
    told = {"shapes": {name: list(masks[name].shape) for name in names}, "shared": shared}
    # In one entry: several are written in any order, and the same network is to be the same file.
    metadata = {"dstbench": json.dumps(told | dict(more))} if names or shared or more else None
    save_file({n: tensor.contiguous() for n, tensor in packed.items()}, path, metadata)
    return sum(tensor.nbytes for tensor in packed.values())


def read_state(path: Path) -> dict[str, Tensor]:
    """The ``state_dict()`` of a network that :func:`write_network` has written, or safetensors'
    own ``save_model``; on the CPU.

    Raises:
        SafetensorError, ValueError, KeyError, RuntimeError: for a file that was not.
    """
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata: dict[str, str] = file.metadata() or {}
    told = _told(metadata)
    metadata.pop("dstbench", None)
    masks = {
        name: unpack_mask(tensors.pop(name + MASK), torch.Size(shape))
        for name, shape in told["shapes"].items()
    }
    state = unpack(tensors, masks)
    shared = metadata | told["shared"]  # save_model has an entry for each
    return state | {name: state[first] for name, first in shared.items() if first in state}


def read_masks(path: Path) -> dict[str, Tensor]:
    """The masks (bool) that a network was written with, by parameter name.

    Raises:
        SafetensorError, ValueError, KeyError: for a file that is not of :func:`write_network`.
    """
    with safe_open(path, "pt") as file:
        shapes = _told(file.metadata() or {})["shapes"]
        return {
            name: unpack_mask(file.get_tensor(name + MASK), torch.Size(shape))
            for name, shape in shapes.items()
        }


def read_more(path: Path) -> dict[str, Any]:
    """What else a network was written with.

    Raises:
        SafetensorError, ValueError: for a file that is not of :func:`write_network`.
    """
    with safe_open(path, "pt") as file:
        told = _told(file.metadata() or {})
    return {key: value for key, value in told.items() if key not in ("shapes", "shared")}


def _told(metadata: Mapping[str, str]) -> dict[str, Any]:
    told = json.loads(metadata.get("dstbench", "{}"))
    whole: dict[str, Any] = {"shapes": {}, "shared": {}} | told if isinstance(told, dict) else {}
    if not all(isinstance(whole.get(part), dict) for part in ("shapes", "shared")):
        raise ValueError("its metadata are not dstbench's")
    return whole


def _without_repetition(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Each tensor under its first name, and the first name of each further one."""
    first: dict[tuple[object, ...], str] = {}
    others: dict[str, str] = {}
    for name, tensor in state.items():
        place = tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
        if tensor.numel() and first.setdefault(place, name) != name:
            others[name] = first[place]
    return {name: tensor for name, tensor in state.items() if name not in others}, others
