"""What is promised of a sparsifier under the conditions of training that a benchmark may set."""

from __future__ import annotations

from contextlib import suppress
from unittest import SkipTest

from dstbench.errors import SparsityError
from dstbench.kernels.library import NoKernelsError, load
from dstbench.testing.checks.sparsifiers.counts import check_counts
from dstbench.testing.checks.sparsifiers.subject import STEPS, SparsifierSubject, broken
from dstbench.testing.checks.sparsifiers.zeros import check_no_leak
from dstbench.testing.trials.networks import NETWORKS
from dstbench.testing.trials.trajectory import Trajectory, record
from dstbench.testing.trials.trial import Trial, first_difference


def nearly_all_can_be_zero(subject: SparsifierSubject) -> None:
    """A sparsity that leaves a single weight active works, or is refused with a SparsityError."""
    for network in NETWORKS:
        size = sum(weight.numel() for weight in Trial(None, network).weights.values())
        try:
            trajectory = subject.trajectory(network, 1 - 1 / size)
        except SparsityError:
            continue
        _check_training(trajectory)


def single_weights_work(subject: SparsifierSubject) -> None:
    """Layers of one weight each are trained like any others, whether active or not."""
    for trajectory in subject.trajectories(["single weights"], [0.25, 0.5, 0.75]):
        _check_training(trajectory)


def bf16_works(subject: SparsifierSubject) -> None:
    """Training under bf16 autocast keeps counts, and zeros outside the masks."""
    for trajectory in subject.trajectories(bf16=True):
        _check_training(trajectory)


def channels_last_works(subject: SparsifierSubject) -> None:
    """Training in channels_last keeps counts, zeros outside the masks, and the weights' memory
    format."""
    for trial in subject.trials(["convolutions"], channels_last=True):
        strides = {name: weight.stride() for name, weight in trial.weights.items()}
        _check_training(record(trial, STEPS))
        for name, weight in trial.weights.items():
            if weight.stride() != strides[name]:
                raise broken(trial, f"{name} has strides {weight.stride()}, not {strides[name]}")


def accumulation_works(subject: SparsifierSubject) -> None:
    """Training with two micro-batches a step keeps counts, and zeros outside the masks."""
    for trajectory in subject.trajectories(micro_batches=2):
        _check_training(trajectory)


def sparse_kernels_work(subject: SparsifierSubject) -> None:
    """Training with sparse kernels, which holds active weights alone, keeps counts, and zeros
    outside the masks; its losses are nearly those of a training with dense kernels for as long as
    both have the same masks."""
    try:
        load()
    except NoKernelsError as error:
        raise SkipTest(str(error)) from None
    both = subject.trajectories(kernels="sparse", packs=True), subject.trajectories()
    for sparse, masked in zip(*both, strict=True):
        for one, other in zip(sparse, masked, strict=True):
            if first_difference(one.masks, other.masks):
                break  # a near tie that rounding has decided, perhaps
            if abs(one.loss - other.loss) > 1e-3 * (1 + abs(other.loss)):
                raise one.broken(
                    f"the loss is {one.loss:.6g} with sparse kernels, and {other.loss:.6g} with "
                    "dense ones"
                )
        _check_training(sparse)


def any_length_and_seed_work(subject: SparsifierSubject) -> None:
    """Trainings of one step and of a million, and seeds of up to 63 bits, work alike, or are
    refused with a SparsityError."""
    for total_steps, seed in [(1, 0), (2, 1), (5, 2), (1_000_000, 2**63 - 1)]:
        with suppress(SkipTest):  # a schedule may refuse to be that short
            for trajectory in subject.trajectories(total_steps=total_steps, seed=seed):
                _check_training(trajectory)


def _check_training(trajectory: Trajectory) -> None:
    """Raise :class:`Broken` unless counts and zeros hold throughout, and weights stay finite."""
    for snapshot in trajectory:
        check_counts(snapshot)
        check_no_leak(snapshot, snapshot.weights)
        for name in snapshot.not_finite:
            raise snapshot.broken(f"{name} is not finite any more")
