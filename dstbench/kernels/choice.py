"""Which layers are computed from their active weights alone, and which as masked dense ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from dstbench.errors import SparsityError

Mode = Literal["auto", "masked", "sparse"]
"""The kernels of masked layers: those that are faster on this machine, masked dense ones, or sparse
ones wherever they take the layer."""

SIZES = (1024, 4096)
"""Positions (pixels, tokens, points of sequences) of a batch at which a layer counts as medium,
and as large."""

NARROW = 8
"""Channels, of inputs or outputs, below which dense convolutions are far from their best."""

SMALLEST = 2**21
"""Multiplications of a masked dense layer below which calling a kernel costs more than it saves."""

FUSED = 1.5
"""Thresholds of linear layers that are computed together with the attention between them, relative
to those of others."""

DEFAULT_THRESHOLDS: Mapping[str, tuple[float, float, float]] = {
    "narrow": (0.95, 0.95, 0.95),
    "conv": (0.35, 0.5, 0.6),
    "pointwise": (0.4, 0.45, 0.42),
    "linear": (0.35, 0.45, 0.45),
    "gru": (0.8, 0.8, 0.8),
    "narrow:4": (0.95, 0.95, 0.95),
    "conv:4": (0.6, 0.65, 0.7),
    "pointwise:4": (0.6, 0.6, 0.55),
    "linear:4": (0.55, 0.65, 0.6),
    "gru:4": (0.95, 0.95, 0.95),
}
"""Densities up to which a sparse pass is the faster one, by kind and size of layer, measured on
processors with AVX-512; those with ``:4`` are of layers whose output channels share masks by
fours."""


@dataclass(frozen=True)
class Choice:
    """What decides, alike in every run, which kernels a layer is computed with.

    ``masked``: dense kernels over masked weights; ``sparse``: kernels over active weights wherever
    there are such; ``auto``: whichever is expected to be faster, by the density, the kind and the
    size of a layer.
    """

    mode: Mode = "auto"
    thresholds: Mapping[str, tuple[float, float, float]] = field(
        default_factory=lambda: DEFAULT_THRESHOLDS
    )

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise SparsityError(
                f'kernels are "auto", "masked" or "sparse", not {json.dumps(self.mode)}'
            )

    def takes(
        self,
        kind: str,
        active: int,
        weights: int,
        positions: int,
        *,
        filled: float = 1,
        grouped: bool = False,
        fused: bool = False,
    ) -> bool:
        """Whether a layer of so many weights is computed from the active ones alone, with so many
        positions in a batch.

        Args:
            filled: part of the vectors that the batch fills: the rest costs as much.
            grouped: whether four neighbouring output channels share their mask.
            fused: whether what is around the layer is computed with it.
        """
        if self.mode == "masked" or active == weights:
            return False
        if self.mode == "sparse":
            return True
        size = sum(positions >= bound for bound in SIZES)
        thresholds = self.thresholds[kind]
        if grouped:
            thresholds = self.thresholds.get(f"{kind}:4", thresholds)
        threshold = thresholds[size] * (FUSED if fused else 1)
        return weights * positions >= SMALLEST and active <= threshold * filled * weights

    def to_json(self) -> dict[str, Any]:
        """What :meth:`from_json` makes the same choice of."""
        return {"mode": self.mode, "thresholds": {k: list(v) for k, v in self.thresholds.items()}}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Choice:
        """The choice that :meth:`to_json` has told."""
        return cls(saved["mode"], {kind: tuple(v) for kind, v in saved["thresholds"].items()})
