"""Layer distributions: how a sparsity is spread over the layers of a network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from dstbench.errors import SparsityError

Distribution = Literal["uniform", "er", "erk"]
"""How active weights are dealt out to layers: see :func:`densities`."""

Shape = Sequence[int]


def densities(
    shapes: Mapping[str, Shape], sparsity: float, distribution: Distribution
) -> dict[str, float]:
    """The density of each layer, such that the whole has density 1 − ``sparsity``.

    - ``uniform``: the same density everywhere.
    - ``er`` (Erdős–Rényi; Mocanu et al. 2018): proportional to (n_in + n_out) / (n_in · n_out).
    - ``erk`` (Erdős–Rényi kernel; Evci et al. 2020, section 3): proportional to
      (n_in + n_out + k_1 + …) / (n_in · n_out · k_1 · …) with the kernel's sizes k_i.

    A shape is a weight's, (n_out, n_in, *kernel). The gates of a recurrent layer are one matrix,
    (gates · hidden, n_in), as torch stores them. Densities above 1 are pinned at 1 and the other
    layers rescaled until none exceeds it.

    Raises:
        SparsityError: if ``sparsity`` is not in [0, 1) or a shape has fewer than two dimensions.
    """
    if not 0 <= sparsity < 1:
        raise SparsityError(f"sparsity must be at least 0 and below 1, not {sparsity}")
    if distribution == "uniform":
        return dict.fromkeys(shapes, 1 - sparsity)

    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    scores = {name: _erdos_renyi(name, shape, distribution) for name, shape in shapes.items()}
    wanted = (1 - sparsity) * sum(sizes.values())
    capped: set[str] = set()
    while True:
        free = [name for name in shapes if name not in capped]
        left = wanted - sum(sizes[name] for name in capped)
        scale = left / sum(scores[name] * sizes[name] for name in free) if free else 0.0
        over = {name for name in free if scale * scores[name] > 1}
        if not over:
            return {name: 1.0 if name in capped else scale * scores[name] for name in shapes}
        capped |= over


def _erdos_renyi(name: str, shape: Shape, distribution: Distribution) -> float:
    if len(shape) < 2:
        raise SparsityError(
            f"{name}: a layer distribution needs weights of two or more dimensions, not {shape}"
        )
    counted = shape if distribution == "erk" else shape[:2]
    return sum(counted) / math.prod(counted)


def active_counts(
    shapes: Mapping[str, Shape], sparsity: float, distribution: Distribution
) -> dict[str, int]:
    """Number of active weights of each layer: whole numbers that sum to exactly
    round((1 − ``sparsity``) · N), N the number of all these weights.

    The densities of :func:`densities` are rounded down, and what is missing goes to the layers
    with the largest remainders.

    Raises:
        SparsityError: as :func:`densities`.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    shares = {
        name: min(density * sizes[name], sizes[name])
        for name, density in densities(shapes, sparsity, distribution).items()
    }
    counts = {name: math.floor(share) for name, share in shares.items()}
    missing = round((1 - sparsity) * sum(sizes.values())) - sum(counts.values())
    by_remainder = sorted(shares, key=lambda name: counts[name] - shares[name])
    for name in by_remainder[:missing]:
        counts[name] += 1
    return counts
