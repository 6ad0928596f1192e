"""The room on a disk that a training needs for its checkpoints."""

from __future__ import annotations

from torch import nn

from dstbench.disk import free_bytes, mebibytes
from dstbench.errors import StoreError
from dstbench.execution.checkpoint import checkpoint_bytes
from dstbench.sparsity import Sparsifier
from dstbench.store.folder import CellFolder


def check_room(folder: CellFolder, denoiser: nn.Module, sparsifier: Sparsifier | None) -> None:
    """Raise :class:`StoreError` where the disk is too small for a checkpoint and the next one."""
    needed, free = 2 * checkpoint_bytes(denoiser, sparsifier), free_bytes(folder.path)
    there = sum(path.stat().st_size for path in folder.checkpoints)
    if free is not None and free + there < needed:
        raise StoreError(
            f"{folder.path.parent}: {mebibytes(free)} are free, but checkpoints of this cell take "
            f"{mebibytes(needed)}; name a folder on another disk with --results"
        )
