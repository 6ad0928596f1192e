"""What items and their pictures have to be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dstbench.testing.checking import Broken


def check_pictures(
    to_images: Callable[[Sequence[Any] | Tensor], Tensor], items: Sequence[Any] | Tensor, what: str
) -> None:
    """Raise :class:`Broken` unless pictures of these items can be scored."""
    pictures = to_images(items)
    if problem := _picture_problem(pictures, len(items)):
        raise Broken(f"to_images of {len(items)} {what} {problem}")
    for index in range(len(items)):
        alone = to_images([items[index]])
        if problem := _picture_problem(alone, 1):
            raise Broken(f"to_images of one of the {what} {problem}")
        if not torch.equal(alone[0], pictures[index]):
            raise Broken(f"item {index} of the {what} is another picture alone than with others")


def item_problem(kind: str, item: Any) -> str | None:
    """Why something is no item of this kind; ``None`` where it is one, or the kind is not known."""
    return ITEM_PROBLEMS.get(kind, lambda item: None)(item)


def _picture_problem(pictures: Any, count: int) -> str | None:
    if not isinstance(pictures, Tensor):
        return f"is a {type(pictures).__name__}, no tensor"
    shape = tuple(pictures.shape)
    if pictures.dtype != torch.uint8 or len(shape) != 4 or shape[1] not in (1, 3):
        return f"is {pictures.dtype} of shape {shape}, not torch.uint8 (N, 1 or 3, H, W)"
    return None if shape[0] == count else f"has {shape[0]} pictures"


def _image_problem(item: Any) -> str | None:
    if not isinstance(item, Tensor):
        return f"is a {type(item).__name__}, no tensor"
    shape = tuple(item.shape)
    if item.dtype != torch.uint8 or len(shape) != 3 or shape[0] not in (1, 3) or not all(shape):
        return f"is {item.dtype} of shape {shape}, not torch.uint8 (1 or 3, H, W)"
    return None


def _sketch_problem(item: Any) -> str | None:
    if not isinstance(item, Tensor):
        return f"is a {type(item).__name__}, no tensor"
    shape = tuple(item.shape)
    if item.dtype != torch.float32 or len(shape) != 2 or shape[1] != 3 or not all(shape):
        return f"is {item.dtype} of shape {shape}, not torch.float32 (points, 3)"
    if not item.isfinite().all():
        return "has coordinates that are not finite"
    odd = sorted(set(item[:, 2].tolist()) - {0.0, 1.0})
    return f"has a pen of {odd[0]:g}, which is neither 0 nor 1" if odd else None


ITEM_PROBLEMS: dict[str, Callable[[Any], str | None]] = {
    "images": _image_problem,
    "sketches": _sketch_problem,
}
"""Functions, by kind of data, that say why something is no item of it; ``None``: it is one."""
