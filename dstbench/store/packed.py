"""Tensors that are zero outside a mask, packed: their active values, and a bit per element.

What comes back is the same to the last bit, NaN and −0.0 included: a tensor with anything but +0
outside its mask is left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Size, Tensor

ACTIVE = ":active"
"""What is added to the name of a tensor whose active values alone are kept."""

_SAME_SIZE_INTEGER = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def pack(tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, with the active values (one dimension) in place of each that has a mask
    (bool) of its name, shape and strides, and is +0 outside it."""
    packed = {}
    for name, tensor in tensors.items():
        values = _active_values(tensor, masks[name]) if name in masks else None
        if values is None:
            packed[name] = tensor
        else:
            packed[name + ACTIVE] = values
    return packed


def unpack(tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that :func:`pack` was given, from what it made of them and the same masks.

    Raises:
        RuntimeError: for a mask of another number of active elements.
    """
    unpacked = {}
    for name, tensor in tensors.items():
        original = name.removesuffix(ACTIVE)
        if original != name and original in masks:
            mask = masks[original]
            unpacked[original] = torch.zeros_like(mask, dtype=tensor.dtype)
            unpacked[original][mask] = _matching(tensor, mask)
        else:
            unpacked[name] = tensor
    return unpacked


def pack_mask(mask: Tensor) -> Tensor:
    """A mask (bool) as bits: uint8 (⌈elements / 8⌉), the first element in the lowest bit."""
    flat = mask.flatten()
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % 8))
    return (padded.view(-1, 8) * _bits(mask.device)).sum(1, dtype=torch.uint8)


def unpack_mask(bits: Tensor, shape: Size) -> Tensor:
    """The mask of this shape that :func:`pack_mask` was given."""
    flat = (bits[:, None] & _bits(bits.device)).flatten() != 0
    return flat[: shape.numel()].view(shape)


def mask_bytes(elements: int) -> int:
    """Size of the packed mask of so many elements."""
    return -(-elements // 8)


def _active_values(tensor: Tensor, mask: Tensor) -> Tensor | None:
    """``None`` where they are not all that there is to keep."""
    integer = _SAME_SIZE_INTEGER.get(tensor.element_size())
    alike = tensor.shape == mask.shape and tensor.stride() == mask.stride()
    if integer is None or not alike:
        return None
    values = tensor.detach()[mask]
    kept = values.view(integer).count_nonzero() == tensor.detach().view(integer).count_nonzero()
    return values if kept else None


def _matching(values: Tensor, mask: Tensor) -> Tensor:
    """The values, if there is one for each active element: one alone would go to all of them."""
    if len(values) != int(mask.count_nonzero()):
        raise RuntimeError(
            f"{len(values)} active values were kept of a mask with {int(mask.count_nonzero())}"
        )
    return values


def _bits(device: torch.device) -> Tensor:
    return torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8, device=device)
