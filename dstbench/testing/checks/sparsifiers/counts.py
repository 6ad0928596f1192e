"""What is promised of a sparsifier's arguments, and of how many weights are active."""

from __future__ import annotations

from unittest import SkipTest

from dstbench.errors import SparsityError
from dstbench.sparsity import DynamicSparsifier
from dstbench.testing.checking import Broken, merged
from dstbench.testing.checks.sparsifiers.subject import (
    STEPS,
    SparsifierSubject,
    attached,
    broken,
)
from dstbench.testing.trials.networks import NETWORKS
from dstbench.testing.trials.trajectory import Snapshot, record
from dstbench.testing.trials.trial import TOTAL_STEPS


def arguments_are_validated(subject: SparsifierSubject) -> None:
    """A sparsity outside of 0 ≤ S < 1, or an unknown setting, is refused with a SparsityError."""
    wrong = [(1.0, {}), (-0.1, {}), (0.5, {"no_such_setting": 1})]
    for sparsity, unknown in wrong:
        try:
            subject.cls(sparsity, total_steps=TOTAL_STEPS, **merged(subject.values, unknown))
        except SparsityError:
            continue
        given = ", ".join([f"sparsity {sparsity}", *unknown])
        raise Broken(f"{given}: was not refused")


def sparsity_is_possible(subject: SparsifierSubject) -> None:
    """At least one small network can be trained at a sparsity of 0.5, 0.75 or 0.9, and none that
    the sparsifier takes raises an exception in training."""
    try:
        for trajectory in subject.trajectories():
            list(trajectory)
    except SkipTest as refused:
        raise Broken(f"every one of {', '.join(NETWORKS)} was {refused}") from None


def counts_are_exact(subject: SparsifierSubject) -> None:
    """The first masks have as many active weights as layer_counts says, in each layer, and
    round((1 − S) · N) in all, unless exact_sparsity is false."""
    for trial in subject.trials():
        for snapshot in record(trial, 0):
            check_counts(snapshot)
        sparsifier = attached(trial)
        exact = round((1 - trial.sparsity) * sparsifier.sparsifiable)
        if sparsifier.exact_sparsity and sparsifier.active != exact:
            raise broken(
                trial,
                f"{sparsifier.active} weights of {sparsifier.sparsifiable} are active, instead of "
                f"round({1 - trial.sparsity:g} · {sparsifier.sparsifiable}) = {exact}",
            )
        shapes = {layer.name: tuple(layer.weight.shape) for layer in sparsifier.layers}
        unattached = subject.cls(trial.sparsity, total_steps=TOTAL_STEPS, seed=0, **subject.values)
        try:
            counts = unattached.layer_counts(shapes)
        except SparsityError:  # they do not follow from shapes
            continue
        for layer in sparsifier.layers:
            if layer.active != counts[layer.name]:
                raise broken(
                    trial,
                    f"{layer.name} has {layer.active} active weights, instead of the "
                    f"{counts[layer.name]} that layer_counts says",
                )


def topology_moves(subject: SparsifierSubject) -> None:
    """The topology updates of a dynamic sparsifier replace connections within the ten steps of a
    trial: otherwise nothing that is promised of updates is checked."""
    if not issubclass(subject.cls, DynamicSparsifier):
        raise SkipTest("its masks are fixed: it is no DynamicSparsifier")
    if not any(trajectory.moves() for trajectory in subject.trajectories()):
        raise Broken(
            f"no mask changed within {STEPS} of {TOTAL_STEPS} steps, with {subject.values}: give "
            "trial_settings with which updates come sooner, or replace more"
        )


def counts_stay(subject: SparsifierSubject) -> None:
    """No step, topology updates included, changes how many weights of a layer are active."""
    for trajectory in subject.trajectories():
        first: dict[str, int] = {}
        for snapshot in trajectory:
            check_counts(snapshot)
            for name, active in snapshot.active.items():
                if active != first.setdefault(name, active):
                    raise snapshot.broken(
                        f"{name} has {active} active weights; it had {first[name]} before the "
                        "first step"
                    )


def check_counts(snapshot: Snapshot) -> None:
    """Raise :class:`Broken` unless each mask holds as many weights as its layer says."""
    for name, mask in snapshot.masks.items():
        held, said = int(mask.count_nonzero()), snapshot.active[name]
        if held != said:
            raise snapshot.broken(
                f"the mask of {name} holds {held} of {mask.numel()} weights, instead of its {said}"
            )
