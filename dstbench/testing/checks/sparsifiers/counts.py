"""What is promised of a sparsifier's arguments, and of how many weights are active."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from unittest import SkipTest

from torch import Tensor

from dstbench.counting.counts import LOOSE
from dstbench.errors import SparsityError
from dstbench.sparsity import DynamicSparsifier, Layer
from dstbench.testing.checking import Broken, merged
from dstbench.testing.checks.sparsifiers.subject import (
    STEPS,
    SparsifierSubject,
    attached,
    broken,
)
from dstbench.testing.trials.networks import NETWORKS
from dstbench.testing.trials.trajectory import Snapshot, record
from dstbench.testing.trials.trial import TOTAL_STEPS, Trial


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
    """The first masks have as many active weights as layer_counts (or density_at) says, in each
    layer, and round((1 − S) · N) in all, or what whole groups come nearest to; if exact_sparsity
    is false, at most a quarter more or fewer."""
    for trial in subject.trials():
        for snapshot in record(trial, 0):
            check_counts(snapshot)
            check_total(snapshot, trial.name, attached(trial).exact_sparsity)
        sparsifier = attached(trial)
        unattached = subject.cls(trial.sparsity, total_steps=TOTAL_STEPS, seed=0, **subject.values)
        try:
            _, counts = next(iter(unattached.count_phases(sparsifier.shapes)))
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
    """How many weights of a layer are active changes in topology updates alone, and there as
    counts_after_update says, all layers together as density_at says."""
    for trajectory in subject.trajectories():
        for snapshot in trajectory:
            check_counts(snapshot)
            for name, active in snapshot.active.items():
                if active != snapshot.chosen[name]:
                    raise snapshot.broken(
                        f"{name} has {active} active weights, where {snapshot.chosen[name]} were "
                        "chosen in the latest update, or at first"
                    )
            check_total(snapshot, trajectory.network, subject.cls.exact_sparsity)


def kept_connections_stay(subject: SparsifierSubject) -> None:
    """select_mask leaves out none of the connections that a topology update keeps."""
    if not issubclass(subject.cls, DynamicSparsifier):
        raise SkipTest("its masks are fixed: it is no DynamicSparsifier")
    for trial in subject.trials():
        sparsifier = attached(trial)
        sparsifier.select_mask = partial(  # type: ignore[method-assign]
            _select_watched, sparsifier.select_mask, trial
        )
        trial.train(STEPS)


def _select_watched(
    select_mask: Callable[[Layer, Tensor, Tensor], Tensor],
    trial: Trial,
    layer: Layer,
    kept: Tensor,
    scores: Tensor,
) -> Tensor:
    before = kept.clone()
    mask = select_mask(layer, kept, scores)
    if lost := int((before & ~mask).count_nonzero()):
        raise broken(
            trial,
            f"the mask that was selected for {layer.name} leaves out {lost} of "
            f"{int(before.count_nonzero())} kept connections",
        )
    return mask


def check_total(snapshot: Snapshot, network: str, exact: bool) -> None:
    """Raise :class:`Broken` unless as many weights are active as the density there asks for."""
    size = sum(mask.numel() for mask in snapshot.masks.values())
    asked, active = snapshot.density * size, sum(snapshot.active.values())
    if exact:
        wrong, bound = abs(active - round(asked)) > snapshot.rounding, ""
    else:
        wrong, bound = abs(active - asked) > LOOSE * asked, f", give or take {LOOSE:.0%}"
    if wrong and (exact or network != "single weights"):  # which have no room for a structure
        raise snapshot.broken(
            f"{active} weights of {size} are active, instead of "
            f"round({snapshot.density:g} · {size}) = {round(asked)}{bound}"
        )


def check_counts(snapshot: Snapshot) -> None:
    """Raise :class:`Broken` unless each mask holds as many weights as its layer says, in the
    layer's structure."""
    for name in snapshot.without_structure:
        raise snapshot.broken(f"the mask of {name} does not have the layer's structure")
    for name, mask in snapshot.masks.items():
        held, said = int(mask.count_nonzero()), snapshot.active[name]
        if held != said:
            raise snapshot.broken(
                f"the mask of {name} holds {held} of {mask.numel()} weights, instead of its {said}"
            )
