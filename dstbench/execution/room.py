"""What a training needs before its first step: weights to train, and room for its checkpoints."""

from __future__ import annotations

from torch import nn

from dstbench.disk import free_bytes, mebibytes
from dstbench.errors import SparsityError, StoreError
from dstbench.execution.checkpoint import checkpoint_bytes
from dstbench.sparsity import Sparsifier
from dstbench.store.folder import CellFolder


def check_active(sparsifier: Sparsifier) -> None:
    """Raise :class:`SparsityError` for masks in which nothing is left to train."""
    layers = sparsifier.sparse_layers
    if layers and not any(bool(layer.mask.any()) for layer in layers):
        weights = sum(layer.mask.numel() for layer in layers)
        raise SparsityError(
            f"sparsity {sparsifier.sparsity:g} leaves none of {weights:,} weights active; at most "
            f"{1 - 1 / weights:.9g} would leave one"
        )


def check_room(folder: CellFolder, denoiser: nn.Module, sparsifier: Sparsifier | None) -> None:
    """Raise :class:`StoreError` where the disk is too small for a checkpoint and the next one."""
    needed, free = 2 * checkpoint_bytes(denoiser, sparsifier), free_bytes(folder.path)
    there = sum(path.stat().st_size for path in folder.checkpoints)
    if free is not None and free + there < needed:
        raise StoreError(
            f"{folder.path.parent}: {mebibytes(free)} are free, but checkpoints of this cell take "
            f"{mebibytes(needed)}; name a folder on another disk with --results"
        )
