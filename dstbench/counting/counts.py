"""Parameters and theoretical FLOPs of a denoiser under masks, and of its training."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor, nn

from dstbench.counting.flops import Flops, FlopsByWeight, flops_by_weight, training_flops
from dstbench.records import Counts
from dstbench.settings import TrainingSettings
from dstbench.sparsity import Sparsifier
from dstbench.sparsity.layers import matching


@dataclass(frozen=True)
class Network:
    """Counts of a denoiser that do not depend on its masks."""

    parameters: int
    """Number of all parameters."""
    shapes: Mapping[str, tuple[int, ...]]
    """Shapes of the sparsifiable weights, by parameter name."""
    flops: FlopsByWeight
    """FLOPs of one denoiser call on one example."""
    calls_per_sample: int
    """Denoiser calls of one sample."""


def measure(
    denoiser: nn.Module,
    sparsifiable: Mapping[str, Tensor],
    inputs: tuple[Any, ...],
    calls_per_sample: int,
) -> Network:
    """Count a denoiser without masks; ``inputs`` are those of one call on one example.

    Raises:
        CountingError: for an operator that may be heavy and for which there is no rule.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flops = flops_by_weight(denoiser, inputs)
    return Network(
        parameters=sum(p.numel() for p in denoiser.parameters()),
        shapes={name: tuple(weight.shape) for name, weight in sparsifiable.items()},
        flops=flops,
        calls_per_sample=calls_per_sample,
    )


def count(network: Network, sparsifier: Sparsifier | None, training: TrainingSettings) -> Counts:
    """The counts of a network, and of its training, under a sparsifier.

    A sparsifier that is not attached to anything is counted as if it were attached to this network.

    Raises:
        CountingError: for a masked weight whose use in the network cannot be followed.
        SparsityError: where the sparsifier could not be attached to such a network.
    """
    active = _active(network, sparsifier)
    sizes = {name: prod(network.shapes[name]) for name in active}
    flops = network.flops.under({name: active[name] / sizes[name] for name in active})
    masked = sum(sizes.values()) - sum(active.values())
    size, steps = training.batch_size, training.steps
    dense_steps = sparsifier.dense_gradient_steps(steps) if sparsifier else 0
    dense_batch = 3 * flops.dense * size
    by_gradient = sparsifier and sparsifier.needs_initial_gradient and sparsifier.sparsity
    before_training = dense_batch if by_gradient else 0.0
    return Counts(
        parameters=network.parameters,
        active_parameters=network.parameters - masked,
        sparsifiable=sum(sizes.values()),
        active_sparsifiable=sum(active.values()),
        inference_flops=flops.masked,
        dense_inference_flops=flops.dense,
        sample_flops=flops.masked * network.calls_per_sample,
        training_flops=before_training + training_flops(flops, size, steps, dense_steps),
        dense_training_flops=dense_batch * steps,
    )


def sparsifiable_flops(network: Network, sparsifier: Sparsifier | None) -> Flops:
    """The part of an inference's FLOPs that masks can save: products with sparsifiable weights."""
    active, flops = _active(network, sparsifier), network.flops.by_weight
    used = {name: flops.get(name, 0.0) for name in active}
    return Flops(
        dense=sum(used.values()),
        masked=sum(used[name] * active[name] / prod(network.shapes[name]) for name in active),
    )


def _active(network: Network, sparsifier: Sparsifier | None) -> dict[str, int]:
    """Number of active elements of each sparsifiable weight, by parameter name."""
    if sparsifier is None:
        return {name: prod(shape) for name, shape in network.shapes.items()}
    if sparsifier.layers:
        return {layer.name: layer.active for layer in sparsifier.layers}
    left_dense = matching(network.shapes, sparsifier.settings.keep_dense)
    return sparsifier.layer_counts(
        {name: shape for name, shape in network.shapes.items() if name not in left_dense}
    )
