"""Where the active connections of a weight are, in the order in which kernels walk them."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from dstbench.kernels import library as kernels
from dstbench.kernels.choice import Choice
from dstbench.kernels.library import Long, address


class CLayer(ctypes.Structure):
    """``struct Layer`` of source/layer.h."""

    _fields_ = [
        *[(name, Long) for name in ("inputs", "outputs", "kernel_rows", "kernel_columns")],
        *[(name, Long) for name in ("stride", "pad_rows", "pad_columns", "group")],
        *[(name, Long) for name in ("input_block", "output_block", "packed")],
        *[(name, ctypes.c_void_p) for name in ("forward_ptr", "forward_at")],
        *[(name, ctypes.c_void_p) for name in ("backward_ptr", "backward_at")],
    ]
    indices: Sequence[Tensor] = ()
    """What it points to."""


class Connections:
    """The active connections of one weight: its mask, indexed anew when the mask has changed.

    Args:
        kind: ``narrow``, ``conv``, ``pointwise``, ``linear`` or ``gru``.
        mask: boolean, in the weight's shape: (outputs, inputs), or with the kernel's two sizes.
        stride, padding: of a convolution.
        gates: number of parts of the outputs that no group of channels may straddle.
        recurrent: whether a state of one point in time, not all inputs at once, is multiplied.
    """

    def __init__(
        self,
        kind: str,
        mask: Tensor,
        choice: Choice,
        dense_gradient: Callable[[], bool],
        *,
        stride: int = 1,
        padding: tuple[int, int] = (0, 0),
        gates: int = 1,
        recurrent: bool = False,
    ) -> None:
        self.kind = kind
        self.mask = mask
        self.choice = choice
        self.dense_gradient = dense_gradient
        """Whether the gradient of inactive weights is wanted, too, of the step being taken."""
        self.in_use = False
        """Whether the latest forward pass went over the active connections alone."""
        self.is_missing_kernels = False
        """Whether it would have, were there kernels on this machine."""
        self.packed = False
        """Whether the weight is held, and its gradient wanted, as the values of active connections
        alone: (active,), in the order in which kernels walk them."""
        self.geometry = kind, stride, padding, gates
        """What a module that uses the weight has to have in common with the others that do."""
        self._stride = stride
        self._padding = padding
        self._gates = gates
        self._recurrent = recurrent
        self._dense: Tensor | None = None
        self._version = -1
        self._layer = CLayer()
        self._gradient: tuple[StorageWeakRef, int] | None = None
        self._active, self._group = 0, 1
        self._two_of_four = False
        self._counted = self._grouped = self._looked_at = -1
        self._case: tuple[int, int, int, Choice] | None = None
        self._decision = False, False
        """What :meth:`pay` has decided for the case that it met last."""

    @property
    def library(self) -> ctypes.CDLL:
        """The kernels, compiled at their first use."""
        return kernels.load()

    def pay(self, positions: int, count: int, places: Callable[[int, ctypes.CDLL], int]) -> bool:
        """Whether a pass over the active connections is taken to be the faster one, with this many
        positions (pixels, tokens) in a batch of ``count`` images or tokens, which are packed into
        vectors with room for ``places``."""
        case = positions, count, self.mask._version, self.choice
        if case != self._case:
            pay_together([self], positions, lambda library: count / places(count, library))
            self._case = case
            self._decision = self.in_use, self.is_missing_kernels
        self.in_use, self.is_missing_kernels = self._decision
        return self.in_use

    def index(self) -> CLayer:
        """What the kernels are told of this layer."""
        if self._version != self.mask._version:
            self._index()
            self._version = self.mask._version
        self._layer.packed = self.packed
        return self._layer

    @property
    def bytes(self) -> int:
        """Memory that the index takes."""
        return sum(tensor.nbytes for tensor in self._layer.indices)

    @property
    def active(self) -> int:
        """Number of active connections."""
        if self._counted != self.mask._version:
            self._active = int(np.count_nonzero(self.mask.numpy()))
            self._counted = self.mask._version
        return self._active

    @property
    def group(self) -> int:
        """Number of neighbouring output channels, 4, 2 or 1, that share their mask."""
        if self._grouped != self.mask._version:
            outputs = self.mask.shape[0]
            part, group = outputs // self._gates, 4
            while part % group:
                group //= 2
            if group > 1:
                sizes = Long(outputs), Long(self.mask[0].numel())
                group = min(group, self.library.shared_group(*sizes, address(self.mask)))
            self._group, self._grouped = group, self.mask._version
        return self._group

    @property
    def is_two_of_four(self) -> bool:
        """Whether of any four neighbouring inputs of an output at most two are active."""
        if self._looked_at != self.mask._version:
            fours = self.mask.view(len(self.mask), -1, 4).sum(-1)
            self._two_of_four, self._looked_at = bool((fours <= 2).all()), self.mask._version
        return self._two_of_four

    def add_dense_gradient(self, gradient: Tensor) -> None:
        """Add up the gradient of all connections of a weight that is packed."""
        self._dense = gradient if self._dense is None else self._dense + gradient

    def take_dense_gradient(self) -> Tensor | None:
        """What was added up since it was taken last."""
        dense, self._dense = self._dense, None
        return dense

    def note_gradient(self, gradient: Tensor) -> None:
        """Remember a gradient that is zero at inactive weights."""
        self._gradient = StorageWeakRef(gradient.untyped_storage()), gradient._version  # type: ignore[no-untyped-call]

    def made(self, gradient: Tensor) -> bool:
        """Whether this is the gradient noted last, to which nothing has been written since."""
        if self._gradient is None:
            return False
        storage, version = self._gradient
        same = storage.cdata == gradient.untyped_storage()._cdata
        return bool(same and gradient._version == version)

    def _index(self) -> None:
        mask = self.mask.view(torch.uint8)
        outputs, inputs, *kernel = mask.shape
        rows, columns = kernel or (1, 1)
        library, active, group = self.library, self.active, self.group
        block = _block(rows * columns * active / mask.numel())
        if self._recurrent:  # whose tiles are a quarter as wide: more inputs stay in the cache
            block = min(128, 4 * block)
        backward = group < 4 or self.kind == "gru"  # groups of four go back as they came
        if not backward:  # block by block, of which two threads have as many to do
            block = math.ceil(inputs / (2 * math.ceil(inputs / (2 * block))))
        layer = CLayer(
            inputs, outputs, rows, columns, self._stride, *self._padding, group, block, block
        )
        sizes = (
            math.ceil(inputs / block) * (outputs // group) + 1,
            active // group,
            math.ceil(outputs / block) * inputs + 1 if backward else 0,
            active if backward else 0,
        )
        layer.indices = [torch.empty(size, dtype=torch.int32) for size in sizes]
        forward_ptr, forward_at, backward_ptr, backward_at = map(address, layer.indices)
        library.index_forward(ctypes.byref(layer), address(mask), forward_ptr, forward_at)
        layer.forward_ptr, layer.forward_at = forward_ptr, forward_at
        if backward:
            library.index_backward(ctypes.byref(layer), backward_ptr, backward_at)
        layer.backward_ptr, layer.backward_at = backward_ptr, backward_at
        self._layer = layer

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("what kernels know of a weight belongs to this process")


def pay_together(
    layers: Sequence[Connections],
    positions: int,
    filled: Callable[[ctypes.CDLL], float],
    *,
    fused: bool = False,
) -> bool:
    """Whether a pass over the active connections of weights that are used together is taken to be
    the faster one; see :meth:`Connections.pay` and :meth:`Choice.takes`."""
    active = sum(layer.active for layer in layers)
    weights = sum(layer.mask.numel() for layer in layers)
    first = layers[0]
    takes = partial(first.choice.takes, first.kind, active, weights, positions, fused=fused)
    # Kernels are compiled for layers alone that may be taken.
    wanted = takes(grouped=True)
    missing = wanted and kernels.why_not() is not None
    pays = (
        wanted
        and not missing
        and takes(filled=filled(first.library), grouped=all(each.group == 4 for each in layers))
    )
    for layer in layers:
        layer.in_use, layer.is_missing_kernels = pays, missing
    return pays


def _block(connections: float) -> int:
    """Channels to a block, of so many active connections each per output: enough for an output to
    have some ten in a block, few enough that a tile's inputs stay in the first-level cache."""
    return min(48, max(16, 8 * math.ceil(10 / 8 / max(connections, 1e-9))))
