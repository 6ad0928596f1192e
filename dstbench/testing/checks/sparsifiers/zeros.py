"""What is promised of a sparsifier's masks: all that is outside them is zero, nothing else is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from unittest import SkipTest

from dstbench.testing.checks.sparsifiers.subject import (
    SPARSITIES,
    SparsifierSubject,
    attached,
    broken,
)
from dstbench.testing.trials.trajectory import Leak, Snapshot
from dstbench.testing.trials.trial import Trial, first_difference


def only_weights_are_masked(subject: SparsifierSubject) -> None:
    """Attaching changes no parameter but the weights that may be masked, and masks each of them
    once, but for those of keep_dense."""
    for trial in subject.trials(sparsities=SPARSITIES[:2]):
        dense = Trial(None, trial.name)
        masked = [layer.name for layer in attached(trial).layers]
        keep_dense = attached(trial).settings.keep_dense
        if not keep_dense and sorted(masked) != sorted(trial.weights):
            odd = ", ".join(sorted(set(masked) ^ set(trial.weights))) or "a weight twice"
            raise broken(trial, f"its layers are not the weights that may be masked: {odd}")
        before, after = dense.network.state_dict(), trial.network.state_dict()
        others = before.keys() - set(masked)
        if difference := first_difference(
            {name: before[name] for name in others}, {name: after[name] for name in others}
        ):
            raise broken(trial, f"{difference} before and after attaching")


def inactive_weights_are_zero(subject: SparsifierSubject) -> None:
    """After every step, each weight outside the masks is exactly zero: nothing grows that its mask
    does not hold."""
    for trajectory in subject.trajectories():
        for snapshot in trajectory:
            check_no_leak(snapshot, snapshot.weights)


def averaged_weights_are_masked(subject: SparsifierSubject) -> None:
    """After every step, averaged weights (EMA) outside the masks are exactly zero: what is scored
    is as sparse as what is claimed."""
    for trajectory in subject.trajectories():
        for snapshot in trajectory:
            check_no_leak(snapshot, snapshot.averaged)


def gradients_are_masked(subject: SparsifierSubject) -> None:
    """After every backward pass, gradients outside the masks are exactly zero, so that clipping
    and the optimizer see those of active weights only."""
    for trajectory in chain(subject.trajectories(), subject.trajectories(micro_batches=2)):
        for snapshot in trajectory:
            check_no_leak(snapshot, snapshot.gradients, then="trial.backward()")


def moments_are_zero(subject: SparsifierSubject) -> None:
    """After every step, the optimizer's moments of weights outside the masks are exactly zero,
    unless grown_state is 'keep'."""
    if getattr(subject.settings, "grown_state", None) == "keep":
        raise SkipTest("grown_state is 'keep': moments of inactive weights are meant to stay")
    for trajectory in subject.trajectories():
        for snapshot in trajectory:
            check_no_leak(snapshot, snapshot.moments)


def check_no_leak(snapshot: Snapshot, leaks: Sequence[Leak], then: str = "") -> None:
    """Raise :class:`Broken` with the first of the leaks, if there is one.

    Args:
        then: Python code that shows the leak, after that which brings a trial to the snapshot.
    """
    if leaks:
        raise snapshot.broken(str(leaks[0]), then)
