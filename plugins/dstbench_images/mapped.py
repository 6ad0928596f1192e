"""Images on disk as a sequence that can be sent to other processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dstbench.files import mapped


class Mapped(Sequence[Any]):
    """Images (N, C, H, W) as they lie on disk; what is sent to a process is where that is."""

    def __init__(self, path: str, shape: tuple[int, ...]) -> None:
        import torch

        self._file = path, shape
        self._images = mapped(Path(path), shape, torch.uint8)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: Any) -> Any:
        return self._images[index]

    def __reduce__(self) -> tuple[Any, ...]:
        return Mapped, self._file
