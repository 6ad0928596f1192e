"""What is promised of a sparsifier: checked by training small networks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any
from unittest import SkipTest

import torch
from torch import Tensor

from dstbench.counting.counts import LOOSE
from dstbench.errors import SparsityError
from dstbench.seeds import derive
from dstbench.sparsity import DynamicSparsifier, Layer, Sparsifier
from dstbench.testing.checking import Broken, Subject, merged, seeded
from dstbench.testing.checks import settings
from dstbench.testing.trials.networks import NETWORKS
from dstbench.testing.trials.processes import require_importable
from dstbench.testing.trials.resuming import resumed
from dstbench.testing.trials.trial import TOTAL_STEPS, Trial, first_difference

SPARSITIES = (0.5, 0.75, 0.9)

STEPS = 10
"""Of most trials: three topology updates, and a step after the last."""

EVERY = 3
"""Steps between the topology updates of a trial, where the class's trial settings say nothing."""

STOP_EARLY = 7
"""The step after which a run is saved, between two topology updates."""


@dataclass
class SparsifierSubject(Subject):
    """A sparsifier, and the trials of it."""

    cls: type[Sparsifier]

    @property
    def values(self) -> dict[str, Any]:
        often = {"exploration_frequency": EVERY}
        return merged(often if issubclass(self.cls, DynamicSparsifier) else {}, super().values)

    def trial(self, network: str, sparsity: float, **conditions: Any) -> Trial:
        return Trial(self.cls, network, sparsity, settings=self.values, **conditions)

    def trials(
        self,
        networks: Sequence[str] = tuple(NETWORKS),
        sparsities: Sequence[float] = SPARSITIES,
        **conditions: Any,
    ) -> Iterator[Trial]:
        """Of each network at each sparsity, unless the class refuses it with a
        :class:`~dstbench.errors.SparsityError`; skips the check where it refuses all."""
        refusals = []
        for network in networks:
            for sparsity in sparsities:
                try:
                    trial = self.trial(network, sparsity, **conditions)
                except SparsityError as error:
                    refusals.append(error)
                else:
                    yield trial
        if len(refusals) == len(networks) * len(sparsities):
            raise SkipTest(f"refused: {refusals[-1]}")


def sparsity_is_to_be_had(subject: SparsifierSubject) -> None:
    """At some sparsity of 0.5, 0.75 and 0.9, at least one small network can be trained."""
    try:
        for trial in subject.trials():
            trial.train(STEPS)
    except SkipTest as refused:
        raise Broken(f"every one of {', '.join(NETWORKS)} was {refused}") from None


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


def counts_are_exact(subject: SparsifierSubject) -> None:
    """The first masks have as many active weights as layer_counts (or density_at) says, in each
    layer, and round((1 − S) · N) in all; if exact_sparsity is false, at most a quarter more or
    fewer."""
    for trial in subject.trials():
        sparsifier = _sparsifier(trial)
        _check_counts(trial)
        _check_total(trial, 0)
        shapes = {layer.name: tuple(layer.weight.shape) for layer in sparsifier.layers}
        unattached = subject.cls(trial.sparsity, total_steps=TOTAL_STEPS, seed=0, **subject.values)
        try:
            _, counts = next(iter(unattached.count_phases(shapes)))
        except SparsityError:  # they do not follow from shapes
            continue
        for layer in sparsifier.layers:
            if layer.active != counts[layer.name]:
                raise _broken(
                    trial,
                    f"{layer.name} has {layer.active} active weights, instead of the "
                    f"{counts[layer.name]} that layer_counts says",
                )


def topology_moves(subject: SparsifierSubject) -> None:
    """The topology updates of a dynamic sparsifier replace connections, within the ten steps of a
    trial: else nothing that is promised of them is checked."""
    if not issubclass(subject.cls, DynamicSparsifier):
        raise SkipTest("its masks are fixed: it is no DynamicSparsifier")
    if not any(_steps_that_move(trial) for trial in subject.trials()):
        raise Broken(
            f"no mask changed within {STEPS} of {TOTAL_STEPS} steps, with {subject.values}: give "
            "trial_settings with which updates come sooner, or replace more"
        )


def counts_stay(subject: SparsifierSubject) -> None:
    """How many weights of a layer are active changes in topology updates alone, and there as
    counts_after_update says, all layers together as density_at says."""
    for trial in subject.trials():
        sparsifier = _sparsifier(trial)
        expected = {layer.name: layer.active for layer in sparsifier.layers}
        _tell_of_updates(sparsifier, expected)
        for step in trial.steps(STEPS):
            _check_counts(trial)
            for layer in sparsifier.layers:
                if layer.active != expected[layer.name]:
                    raise _broken(
                        trial,
                        f"{layer.name} has {layer.active} active weights, where "
                        f"{expected[layer.name]} were chosen in the latest update, or at first",
                    )
            _check_total(trial, step)


def kept_connections_stay(subject: SparsifierSubject) -> None:
    """select_mask leaves out none of the connections that a topology update keeps."""
    if not issubclass(subject.cls, DynamicSparsifier):
        raise SkipTest("its masks are fixed: it is no DynamicSparsifier")
    for trial in subject.trials():
        sparsifier = _sparsifier(trial)
        select_mask = sparsifier.select_mask

        def watched(layer: Layer, kept: Tensor, scores: Tensor) -> Tensor:
            before = kept.clone()
            mask = select_mask(layer, kept, scores)  # noqa: B023
            if lost := int((before & ~mask).count_nonzero()):
                raise _broken(
                    trial,  # noqa: B023
                    f"the mask that was selected for {layer.name} leaves out {lost} of "
                    f"{int(before.count_nonzero())} kept connections",
                )
            return mask

        sparsifier.select_mask = watched  # type: ignore[method-assign]
        trial.train(STEPS)


def only_weights_are_masked(subject: SparsifierSubject) -> None:
    """Attaching changes no parameter but the weights that may be masked, and masks each of them
    once, but for those of keep_dense."""
    for trial in subject.trials(sparsities=SPARSITIES[:2]):
        dense = Trial(None, trial.name)
        masked = [layer.name for layer in _sparsifier(trial).layers]
        keep_dense = _sparsifier(trial).settings.keep_dense
        if not keep_dense and sorted(masked) != sorted(trial.weights):
            odd = ", ".join(sorted(set(masked) ^ set(trial.weights))) or "a weight twice"
            raise _broken(trial, f"its layers are not the weights that may be masked: {odd}")
        before, after = dense.network.state_dict(), trial.network.state_dict()
        others = before.keys() - set(masked)
        if difference := first_difference(
            {name: before[name] for name in others}, {name: after[name] for name in others}
        ):
            raise _broken(trial, f"{difference} before and after attaching")


def inactive_weights_are_zero(subject: SparsifierSubject) -> None:
    """After every step, each weight outside the masks is exactly zero: nothing grows that its mask
    does not hold."""
    for trial in subject.trials():
        for _ in trial.steps(STEPS):
            _check_weights(trial)


def averaged_weights_are_masked(subject: SparsifierSubject) -> None:
    """After every step, averaged weights (EMA) outside the masks are exactly zero: what is scored
    is as sparse as what is claimed."""
    for trial in subject.trials():
        for _ in trial.steps(STEPS):
            for name, mask in trial.masks.items():
                _check_zero(
                    trial,
                    "the averaged weight",
                    name,
                    trial.averaged.module.get_parameter(name),
                    mask,
                )


def gradients_are_masked(subject: SparsifierSubject) -> None:
    """After every backward pass, gradients outside the masks are exactly zero, so that clipping
    and the optimizer see those of active weights only."""
    for micro_batches in (1, 2):
        for trial in subject.trials(micro_batches=micro_batches):
            for _ in range(STEPS):
                trial.backward()
                for name, mask in trial.masks.items():
                    gradient = trial.weights[name].grad
                    if gradient is not None:
                        _check_zero(trial, "the gradient of", name, gradient, mask)
                trial.finish_step()


def moments_are_zero(subject: SparsifierSubject) -> None:
    """After every step, the optimizer's moments of weights outside the masks are exactly zero,
    unless grown_state is 'keep'."""
    if getattr(subject.settings, "grown_state", None) == "keep":
        raise SkipTest("grown_state is 'keep': moments of inactive weights are meant to stay")
    for trial in subject.trials():
        for _ in trial.steps(STEPS):
            for name, key, moment in trial.moments():
                if name in trial.masks:
                    _check_zero(trial, f"{key} of", name, moment, trial.masks[name])


def training_is_deterministic(subject: SparsifierSubject) -> None:
    """Weights and masks follow from the seed alone: not from the global generators of torch, NumPy
    and Python, nor from anything else."""
    for network in NETWORKS:
        states = []
        for global_seed in (1, 1, 2):
            with seeded(global_seed):
                trials = list(subject.trials([network]))
                for trial in trials:
                    trial.train(STEPS)
                states.append([trial.state() for trial in trials])
        first, same, other = states
        for trial, *compared in zip(trials, first, same, other, strict=True):
            if difference := first_difference(compared[0], compared[1]):
                raise _broken(trial, f"two runs with the same seed differ: {difference}")
            if difference := first_difference(compared[0], compared[2]):
                raise _broken(
                    trial,
                    "two runs with the same seed differ where the global generators are seeded "
                    f"differently: {difference}. Draw from the rng that is given, or from a "
                    "torch.Generator seeded with self.seed",
                )


def training_survives_a_new_process(subject: SparsifierSubject) -> None:
    """Saved after some steps and loaded in a new process, training goes on to the same weights,
    masks, moments and averages, bit for bit."""
    require_importable(subject.cls)
    trials = list(subject.trials())
    for trial in trials:
        trial.train(STOP_EARLY)
    ends = resumed(trials, more_steps=STEPS)
    for trial, end in zip(trials, ends, strict=True):
        trial.train(STEPS)
        if difference := first_difference(trial.state(), end):
            raise _broken(
                trial,
                f"uninterrupted and saved after step {STOP_EARLY}, the runs differ: {difference}. "
                "Is all that a step depends on in state_dict?",
            )


def zero_sparsity_is_dense(subject: SparsifierSubject) -> None:
    """At S = 0, training goes on exactly as without a sparsifier, bit for bit."""
    for trial in subject.trials(sparsities=[0.0]):
        dense = Trial(None, trial.name)
        for _ in trial.steps(STEPS):
            with_sparsifier = {k: v for k, v in trial.state().items() if not k.startswith("mask ")}
            if difference := first_difference(dense.state(), with_sparsifier):
                raise _broken(trial, f"without and with the sparsifier, {difference}")
            dense.take_step()


def nearly_all_can_be_zero(subject: SparsifierSubject) -> None:
    """A sparsity that leaves a single weight active works, or is refused with a SparsityError."""
    for network in NETWORKS:
        size = sum(weight.numel() for weight in Trial(None, network).weights.values())
        try:
            trial = subject.trial(network, 1 - 1 / size)
        except SparsityError:
            continue
        _check_training(trial)


def single_weights_work(subject: SparsifierSubject) -> None:
    """Layers of one weight each are trained like any others, whether active or not."""
    for trial in subject.trials(["single weights"], [0.25, 0.5, 0.75]):
        _check_training(trial)


def bf16_works(subject: SparsifierSubject) -> None:
    """Training under bf16 autocast keeps counts, and zeros outside the masks."""
    for trial in subject.trials(bf16=True):
        _check_training(trial)


def channels_last_works(subject: SparsifierSubject) -> None:
    """Training in channels_last keeps counts, zeros outside the masks, and the weights' memory
    format."""
    for trial in subject.trials(["convolutions"], channels_last=True):
        strides = {name: weight.stride() for name, weight in trial.weights.items()}
        _check_training(trial)
        for name, weight in trial.weights.items():
            if weight.stride() != strides[name]:
                raise _broken(trial, f"{name} has strides {weight.stride()}, not {strides[name]}")


def accumulation_works(subject: SparsifierSubject) -> None:
    """Training with two micro-batches a step keeps counts, and zeros outside the masks."""
    for trial in subject.trials(micro_batches=2):
        _check_training(trial)


def any_length_and_seed_work(subject: SparsifierSubject) -> None:
    """Trainings of one step and of a million, and seeds of up to 63 bits, work alike, or are
    refused with a SparsityError."""
    for total_steps, seed in [(1, 0), (2, 1), (5, 2), (1_000_000, 2**63 - 1)]:
        with suppress(SkipTest):  # a schedule may refuse to be that short
            for trial in subject.trials(total_steps=total_steps, seed=seed):
                _check_training(trial, min(STEPS, total_steps))


def dense_gradients_are_declared(subject: SparsifierSubject) -> None:
    """Gradients of inactive weights are read at no other step than those that dense_gradient_steps
    counts, and before the first step only where needs_initial_gradient is true, so that training
    FLOPs are right."""
    for trial, other in zip(
        subject.trials(disturb=partial(_noise_where_undeclared, 1)),
        subject.trials(disturb=partial(_noise_where_undeclared, 2)),
        strict=True,
    ):
        _check_declaration(trial)
        for _ in trial.steps(STEPS):
            if difference := first_difference(trial.state(), other.state()):
                raise Broken(
                    f"{trial}: two runs whose gradients differ only at inactive weights, and only "
                    f"at steps that dense_gradient_steps does not count, differ: {difference}"
                )
            other.take_step()


def bad_gradients_move_nothing(subject: SparsifierSubject) -> None:
    """A step with a gradient that is not finite, be it of an active or an inactive weight, leaves
    the masks as they are."""
    for trial in subject.trials():
        for step in _steps_that_move(trial):
            for value in (math.nan, math.inf):
                for active in (False, True):
                    spoilt = subject.trial(
                        trial.name, trial.sparsity, disturb=partial(_spoil, step, value, active)
                    )
                    spoilt.train(step - 1)
                    before = {name: mask.clone() for name, mask in spoilt.masks.items()}
                    if not any((mask == active).any() for mask in before.values()):
                        continue  # all are active so far: there is none to spoil
                    spoilt.take_step()
                    if difference := first_difference(before, spoilt.masks):
                        which = "active" if active else "inactive"
                        raise Broken(
                            f"{spoilt}: one gradient of an {which} weight of each layer was "
                            f"{value}, and before and after the step the mask of {difference}"
                        )


CHECKS = (
    *settings.CHECKS,
    arguments_are_validated,
    sparsity_is_to_be_had,
    counts_are_exact,
    topology_moves,
    counts_stay,
    kept_connections_stay,
    only_weights_are_masked,
    inactive_weights_are_zero,
    averaged_weights_are_masked,
    gradients_are_masked,
    moments_are_zero,
    training_is_deterministic,
    training_survives_a_new_process,
    zero_sparsity_is_dense,
    nearly_all_can_be_zero,
    single_weights_work,
    bf16_works,
    channels_last_works,
    accumulation_works,
    any_length_and_seed_work,
    dense_gradients_are_declared,
    bad_gradients_move_nothing,
)


def _sparsifier(trial: Trial) -> Sparsifier:
    assert trial.sparsifier is not None
    return trial.sparsifier


def _broken(trial: Trial, happened: str) -> Broken:
    return Broken(f"{trial}: {happened}", trial.code())


def _check_training(trial: Trial, steps: int = STEPS) -> None:
    """Counts and zeros hold throughout, and weights stay finite."""
    for _ in trial.steps(steps):
        _check_counts(trial)
        _check_weights(trial)
        for name, weight in trial.network.named_parameters():
            if not weight.isfinite().all():
                raise _broken(trial, f"{name} is not finite any more")


def _check_counts(trial: Trial) -> None:
    for layer in _sparsifier(trial).layers:
        active = int(layer.mask.count_nonzero())
        if active != layer.active:
            raise _broken(
                trial,
                f"the mask of {layer.name} holds {active} of {layer.mask.numel()} weights, instead "
                f"of its {layer.active}",
            )


def _check_total(trial: Trial, step: int) -> None:
    """As many weights are active after that step as the sparsifier's density there asks for."""
    sparsifier = _sparsifier(trial)
    density = 1 - trial.sparsity
    if isinstance(sparsifier, DynamicSparsifier) and trial.sparsity:
        updates = filter(sparsifier.updates_at, range(step, 0, -1))
        density = sparsifier.density_at(next(updates, 0))
    asked, active = density * sparsifier.sparsifiable, sparsifier.active
    if sparsifier.exact_sparsity:
        wrong, bound = active != round(asked), ""
    else:
        wrong, bound = abs(active - asked) > LOOSE * asked, f", give or take {LOOSE:.0%}"
    if not wrong or (bound and trial.name == "single weights"):  # has no room for a structure
        return
    raise _broken(
        trial,
        f"{active} weights of {sparsifier.sparsifiable} are active, instead of "
        f"round({density:g} · {sparsifier.sparsifiable}) = {round(asked)}{bound}",
    )


def _tell_of_updates(sparsifier: Sparsifier, counts: dict[str, int]) -> None:
    """Keep ``counts`` up to date with what the sparsifier says that layers have."""
    if not isinstance(sparsifier, DynamicSparsifier):
        return
    told = sparsifier.counts_after_update

    def telling(step: int) -> Mapping[str, int]:
        after = told(step)
        counts.update(after)
        return after

    sparsifier.counts_after_update = telling  # type: ignore[method-assign]


def _check_weights(trial: Trial) -> None:
    for name, mask in trial.masks.items():
        _check_zero(trial, "the weight", name, trial.weights[name], mask)


def _check_zero(trial: Trial, what: str, name: str, values: Tensor, mask: Tensor) -> None:
    outside = values.detach()[~mask]
    if outside.count_nonzero():
        number = int(outside.count_nonzero())
        largest = outside.abs().max().item()
        raise _broken(
            trial,
            f"{what} {name} is not zero at {number} of {len(outside)} inactive connections "
            f"(up to {largest:.3g})",
        )


def _check_declaration(trial: Trial) -> None:
    sparsifier = _sparsifier(trial)
    allowed = int(sparsifier.needs_initial_gradient)
    if trial.initial_gradients > allowed:
        raise _broken(
            trial,
            f"the gradient of the first batch was computed {trial.initial_gradients} times, where "
            f"needs_initial_gradient is {sparsifier.needs_initial_gradient}",
        )
    counts = [sparsifier.dense_gradient_steps(steps) for steps in range(TOTAL_STEPS + 1)]
    for steps, (before, after) in enumerate(pairwise(counts), start=1):
        if after - before not in (0, 1) or counts[0] != 0:
            raise _broken(
                trial,
                f"dense_gradient_steps({steps - 1}) is {before}, dense_gradient_steps({steps}) is "
                f"{after}: a step has dense gradients or has not",
            )


def _noise_where_undeclared(seed: int, trial: Trial, name: str, gradient: Tensor) -> Tensor:
    mask = trial.masks.get(name)
    if mask is None or trial.declares(trial.step + 1):
        return gradient
    rng = torch.Generator().manual_seed(derive(seed, name, trial.step))
    return torch.where(mask, gradient, 10 * torch.randn(gradient.shape, generator=rng))


def _spoil(
    step: int, value: float, active: bool, trial: Trial, name: str, gradient: Tensor
) -> Tensor:
    """Another value for the gradient of the layer's first (in)active weight, at one step."""
    mask = trial.masks.get(name)
    if mask is None or trial.step + 1 != step:
        return gradient
    among = (mask == active).flatten()
    spoilt = gradient.flatten().clone()
    if among.any():
        spoilt[int(among.byte().argmax())] = value
    return spoilt.view_as(gradient)


def _steps_that_move(trial: Trial) -> list[int]:
    """The first and the last step that changes a mask."""
    moves = []
    before: dict[str, Tensor] = {}
    for step in trial.steps(STEPS):
        masks = {name: mask.clone() for name, mask in trial.masks.items()}
        if before and first_difference(before, masks):
            moves.append(step)
        before = masks
    return sorted({*moves[:1], *moves[-1:]})
