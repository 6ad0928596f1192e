"""Active values of weights that do not change, found once."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from dstbench.kernels.connections import Connections
from dstbench.kernels.packing import packed

_known: ContextVar[MutableMapping[Tensor, tuple[tuple[int, int], Tensor]] | None] = ContextVar(
    "_known", default=None
)
"""Versions of fixed weights and their masks, and active values."""


@contextmanager
def fixed_weights() -> Iterator[None]:
    """A time in which weights stay as they are, as they do while samples are drawn: sparse layers
    pick the active values out of each once, not at every pass.

    Writes through ``.data`` go unnoticed.
    """
    token = _known.set(WeakTensorKeyDictionary())
    try:
        yield
    finally:
        _known.reset(token)


def known_values(weight: Tensor, connections: Connections) -> Tensor | None:
    """The active values of a weight, where they are all that is held of it, or where it is fixed;
    ``None`` elsewhere."""
    if connections.packed:
        return weight.detach()
    known = _known.get()
    if known is None or weight.is_inference():
        return None
    versions = weight._version, connections.mask._version
    if weight not in known or known[weight][0] != versions:
        known[weight] = versions, packed(weight.detach(), connections)
    return known[weight][1]
