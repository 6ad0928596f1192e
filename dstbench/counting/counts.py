"""Parameters and theoretical FLOPs of a denoiser under masks, and of its training."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor, nn

from dstbench.counting.flops import Flops, FlopsByWeight, flops_by_weight, training_flops
from dstbench.errors import CountingError
from dstbench.records import Counts
from dstbench.settings import TrainingSettings
from dstbench.sparsity import Sparsifier
from dstbench.sparsity.shapes import weight_shapes


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
        shapes=weight_shapes(denoiser, sparsifiable),
        flops=flops,
        calls_per_sample=calls_per_sample,
    )


def count(
    network: Network,
    sparsifier: Sparsifier | None,
    training: TrainingSettings,
    *,
    steps: int | None = None,
    full: Network | None = None,
) -> Counts:
    """The counts of a network, and of its training, under a sparsifier.

    A sparsifier that is not attached to anything is counted as if it were attached to this network.

    Args:
        steps: of the training; by default those of the settings, which are dense's in any case.
        full: the network that this one is a narrower one of.

    Raises:
        CountingError: for a masked weight whose use in the network cannot be followed.
        SparsityError: where the sparsifier could not be attached to such a network.
    """
    steps, full = steps or training.steps, full or network
    phases = _phases(network, sparsifier, steps)
    active = phases[-1].active
    sizes = {name: prod(network.shapes[name]) for name in active}
    flops = [network.flops.under(_densities(phase.active, sizes)) for phase in phases]
    masked = sum(sizes.values()) - sum(active.values())
    size, dense_call = training.batch_size, full.flops.under({}).dense
    dense_batch = 3 * dense_call * size
    passes = 0
    if sparsifier and sparsifier.needs_initial_gradient and sparsifier.sparsity:
        passes = sparsifier.initial_passes
    return Counts(
        parameters=full.parameters,
        active_parameters=network.parameters - masked,
        sparsifiable=sum(sizes.values() if full is network else map(prod, full.shapes.values())),
        active_sparsifiable=sum(active.values()),
        mean_active_sparsifiable=sum(p.steps * sum(p.active.values()) for p in phases) / steps,
        inference_flops=flops[-1].masked,
        dense_inference_flops=dense_call,
        sample_flops=flops[-1].masked * network.calls_per_sample,
        training_flops=dense_batch * passes
        + sum(
            training_flops(of_phase, size, phase.steps, phase.dense_gradient_steps)
            for phase, of_phase in zip(phases, flops, strict=True)
        ),
        dense_training_flops=dense_batch * training.steps,
    )


LOOSE = 0.25
"""Part of the density that is asked for by which a method may miss it whose masks have a structure
that does not allow every number of connections."""


def check_claims(network: Network, sparsifier: Sparsifier, denoiser: nn.Module) -> None:
    """Recount what is trained: masks against counts, stored weights against masks.

    ``denoiser`` is what is kept and sampled from.

    Raises:
        SparsityError: where a mask holds another number of connections than is said, or a weight
            is not zero outside its mask.
        CountingError: where other weights are masked than the settings say, more are stored than
            are said to be active, or more or fewer are active than the cell's sparsity asks for.
    """
    Sparsifier.verify(sparsifier)  # whatever a subclass makes of it
    kind = type(sparsifier).__name__
    masked, held = _masked(network, sparsifier), {layer.name for layer in sparsifier.layers}
    if odd := sorted(masked.keys() ^ held):
        raise CountingError(
            f"{kind} keeps {len(held)} weights masked, where its settings say {len(masked)}: "
            f"{odd[0]} is {'not' if odd[0] in masked else 'wrongly'} among them; an attach() of "
            "its own has to pass on to super().attach() the weights that it is given"
        )
    active = _active(network, sparsifier)
    for name, count in active.items():
        stored = int(denoiser.get_parameter(name).count_nonzero())
        if stored > count:
            raise CountingError(
                f"{stored} weights of {name} are stored, where {count} are said to be active"
            )
    total, size = sum(active.values()), sum(prod(network.shapes[name]) for name in active)
    density, right = sparsifier.final_density, round(sparsifier.final_density * size)
    if sparsifier.exact_sparsity and abs(total - right) > sparsifier.rounding:
        raise CountingError(
            f"{total:,} of {size:,} sparsifiable weights are active, where {right:,} would be "
            f"right for a density of {density:g}; a method whose masks have a structure that does "
            "not allow every number says so by exact_sparsity = False"
        )
    if abs(total - density * size) > max(LOOSE * density * size, sparsifier.rounding):
        raise CountingError(
            f"{total:,} of {size:,} sparsifiable weights are active, where {right:,}, give or take "
            f"{LOOSE:.0%}, would be right for a density of {density:g}: a structure of the masks "
            "is no reason to be further from it"
        )


@dataclass(frozen=True)
class _Phase:
    """Steps of a training between which no layer's number of active weights changes."""

    steps: int
    dense_gradient_steps: int
    active: Mapping[str, int]


def _phases(network: Network, sparsifier: Sparsifier | None, steps: int) -> list[_Phase]:
    if sparsifier is None:
        return [_Phase(steps, 0, _active(network, None))]
    starts = sparsifier.count_history or list(sparsifier.count_phases(_masked(network, sparsifier)))
    ends = [start for start, _ in starts[1:]] + [steps]
    return [
        _Phase(
            end - start,
            sparsifier.dense_gradient_steps(end) - sparsifier.dense_gradient_steps(start),
            active,
        )
        for (start, active), end in zip(starts, ends, strict=True)
    ]


def _densities(active: Mapping[str, int], sizes: Mapping[str, int]) -> dict[str, float]:
    return {name: count / sizes[name] for name, count in active.items()}


def sparsifiable_flops(
    network: Network, sparsifier: Sparsifier | None, full: Network | None = None
) -> Flops:
    """The part of an inference's FLOPs that masks can save: products with sparsifiable weights;
    ``full`` is the network that this one is a narrower one of."""
    active, flops = _active(network, sparsifier), network.flops.by_weight
    used = {name: flops.get(name, 0.0) for name in active}
    full = full or network
    return Flops(
        dense=sum(full.flops.by_weight.get(name, 0.0) for name in active),
        masked=sum(used[name] * active[name] / prod(network.shapes[name]) for name in active),
    )


def _active(network: Network, sparsifier: Sparsifier | None) -> dict[str, int]:
    """Number of active elements of each sparsifiable weight, by parameter name."""
    if sparsifier is None:
        return {name: prod(shape) for name, shape in network.shapes.items()}
    if sparsifier.layers:
        return {layer.name: layer.active for layer in sparsifier.layers}
    *_, (_, active) = sparsifier.count_phases(_masked(network, sparsifier))
    return active


def _masked(network: Network, sparsifier: Sparsifier) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights that the sparsifier masks."""
    return {name: network.shapes[name] for name in sparsifier.masked_names(network.shapes)}
