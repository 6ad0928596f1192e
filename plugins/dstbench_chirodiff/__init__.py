"""ChiroDiff: a bidirectional GRU that denoises pen strokes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dstbench import hookimpl

if TYPE_CHECKING:
    from dstbench.contracts import Model


@hookimpl
def dstbench_models() -> list[type[Model]]:
    from dstbench_chirodiff.model import ChiroDiff

    return [ChiroDiff]
