"""A diffusion transformer, on pixels or on latents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dstbench import hookimpl

if TYPE_CHECKING:
    from dstbench.contracts import Model


@hookimpl
def dstbench_models() -> list[type[Model]]:
    from dstbench_dit.model import DiffusionTransformer

    return [DiffusionTransformer]
