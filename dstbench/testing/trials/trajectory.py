"""A trial's training, recorded at every step, so that many checks can look at one training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

from dstbench.sparsity import DynamicSparsifier, Sparsifier
from dstbench.testing.checking import Broken
from dstbench.testing.trials.trial import Trial, first_difference


class Leak(NamedTuple):
    """Values of one layer that are not zero, although their connections are inactive."""

    what: str
    """Such as ``"the averaged weight 0.weight"``."""
    number: int
    inactive: int
    """Number of the layer's inactive connections."""
    largest: float
    """Largest magnitude of these values."""

    def __str__(self) -> str:
        return (
            f"{self.what} is not zero at {self.number} of {self.inactive} inactive connections "
            f"(up to {self.largest:.3g})"
        )


@dataclass
class Snapshot:
    """A trial between two of its steps."""

    trial: str
    """The trial in words, and the number of steps taken."""
    code: str
    """Python code that brings a trial to this step."""
    step: int
    loss: float
    """Loss of the latest step's batch; 0 before the first."""
    masks: Mapping[str, Tensor]
    """Copies of the masks, by name of the layer."""
    active: Mapping[str, int]
    """Number of active weights that the sparsifier says each layer has."""
    chosen: Mapping[str, int]
    """Number that it chose in the latest change of counts, or at first."""
    density: float
    """Density of the sparsifiable weights that it says there is after the latest update."""
    rounding: int
    """Number of weights by which their number may miss that density, in whole groups."""
    without_structure: list[str]
    """Names of the layers whose masks lack their structure."""
    weights: list[Leak]
    averaged: list[Leak]
    moments: list[Leak]
    not_finite: list[str]
    """Names of the parameters with an element that is not finite."""
    gradients: list[Leak] = field(default_factory=list)
    """Leaks of the gradients that the next step's backward pass accumulates."""

    def broken(self, happened: str, then: str = "") -> Broken:
        """A promise broken here; ``then`` is code that shows it, after :attr:`code`."""
        return Broken(f"{self.trial}: {happened}", f"{self.code}\n{then}".strip())


@dataclass
class Trajectory:
    """The snapshots of a trial: before its first step, and after each step.

    Iterating yields them in order, and then raises what the training has raised, if anything.
    """

    network: str
    sparsity: float
    snapshots: list[Snapshot] = field(default_factory=list)
    end: Mapping[str, Tensor] = field(default_factory=dict)
    """Copies of all tensors that training changes, after the last step, by what they are."""
    error: BaseException | None = None

    def __iter__(self) -> Iterator[Snapshot]:
        yield from self.snapshots
        if self.error is not None:
            raise self.error

    def moves(self) -> list[int]:
        """The steps that changed a mask."""
        return [
            after.step for before, after in pairwise(self) if _differ(before.masks, after.masks)
        ]


def record(trial: Trial, steps: int) -> Trajectory:
    """The trajectory of so many steps, which are taken here."""
    trajectory = Trajectory(trial.name, trial.sparsity)
    try:
        trajectory.snapshots.append(_snapshot(trial))
        for _ in range(steps):
            trial.backward()
            trajectory.snapshots[-1].gradients += _leaks_of_gradients(trial)
            trial.finish_step()
            trajectory.snapshots.append(_snapshot(trial))
        trajectory.end = trial.state()
    except (Exception, SystemExit) as error:
        trajectory.error = error
    return trajectory


def _snapshot(trial: Trial) -> Snapshot:
    assert trial.sparsifier is not None
    masks = {name: mask.clone() for name, mask in trial.masks.items()}
    averaged = trial.averaged.module
    return Snapshot(
        trial=str(trial),
        code=trial.code(),
        step=trial.step,
        loss=trial.loss,
        masks=masks,
        active={layer.name: layer.active for layer in trial.sparsifier.layers},
        chosen=dict(trial.sparsifier.count_history[-1][1]),
        density=_density(trial.sparsifier),
        rounding=trial.sparsifier.rounding,
        without_structure=[
            layer.name for layer in trial.sparsifier.layers if not layer.structure.holds(layer.mask)
        ],
        weights=_leaks((f"the weight {n}", trial.weights[n], masks[n]) for n in masks),
        averaged=_leaks(
            (f"the averaged weight {n}", averaged.get_parameter(n), masks[n]) for n in masks
        ),
        moments=_leaks(
            (f"{key} of {n}", moment, masks[n]) for n, key, moment in trial.moments() if n in masks
        ),
        not_finite=[
            name
            for name, parameter in trial.network.named_parameters()
            if not parameter.isfinite().all()
        ],
    )


def _density(sparsifier: Sparsifier) -> float:
    if isinstance(sparsifier, DynamicSparsifier) and sparsifier.sparsity:
        return sparsifier.density_at(sparsifier.updated_at)
    return 1 - sparsifier.sparsity


def _leaks_of_gradients(trial: Trial) -> list[Leak]:
    return _leaks(
        (f"the gradient of {name}", gradient, mask)
        for name, mask in trial.masks.items()
        if (gradient := trial.weights[name].grad) is not None
    )


def _leaks(found: Iterable[tuple[str, Tensor, Tensor]]) -> list[Leak]:
    """The leaks among tensors, given each with its name and its mask."""
    leaks = []
    for what, values, mask in found:
        outside = values.detach()[~mask]
        if number := int(outside.count_nonzero()):
            leaks.append(Leak(what, number, len(outside), outside.abs().max().item()))
    return leaks


def _differ(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> bool:
    return first_difference(before, after) is not None
