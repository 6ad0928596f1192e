"""What is promised of a sparsifier that reads gradients: only where declared, only finite ones."""

from __future__ import annotations

import math
from copy import deepcopy
from functools import partial
from itertools import pairwise, product

import torch
from torch import Tensor

from dstbench.seeds import derive
from dstbench.testing.checking import Broken
from dstbench.testing.checks.sparsifiers.subject import SparsifierSubject, attached, broken
from dstbench.testing.trials.trial import TOTAL_STEPS, Trial, first_difference


def dense_gradients_are_declared(subject: SparsifierSubject) -> None:
    """Gradients of inactive weights are read at no other step than those that dense_gradient_steps
    counts, and before the first step only where needs_initial_gradient is true, so that training
    FLOPs are right."""
    for trajectory, trial in subject.again(disturb=_noise_where_undeclared):
        _check_declaration(trial)
        if difference := first_difference(trajectory.end, trial.state()):
            raise Broken(
                f"{trial}: two runs whose gradients differ only at inactive weights, and only at "
                f"steps that dense_gradient_steps does not count, differ: {difference}"
            )


def bad_gradients_move_nothing(subject: SparsifierSubject) -> None:
    """A step with a gradient that is not finite, be it of an active or an inactive weight, leaves
    the masks as they are."""
    for trajectory in subject.trajectories():
        moves = trajectory.moves()
        where = trajectory.network, trajectory.sparsity
        whole = subject.trial(*where)
        for step in sorted({*moves[:1], *moves[-1:]}):
            whole.train(step - 1 - whole.step)
            for value, active in product((math.nan, math.inf), (False, True)):
                if not any((mask == active).any() for mask in whole.masks.values()):
                    continue  # all are active so far: there is none to spoil
                spoilt = subject.trial(*where, disturb=partial(_spoil, step, value, active))
                spoilt.restore(deepcopy(whole.saved()))
                spoilt.take_step()
                spoilt.end()
                if difference := first_difference(whole.masks, spoilt.masks):
                    which = "active" if active else "inactive"
                    raise Broken(
                        f"{spoilt}: one gradient of an {which} weight of each layer was "
                        f"{value}, and before and after the step the mask of {difference}"
                    )
        whole.end()


def _check_declaration(trial: Trial) -> None:
    sparsifier = attached(trial)
    allowed = sparsifier.initial_passes if sparsifier.needs_initial_gradient else 0
    if trial.initial_gradients > allowed:
        raise broken(
            trial,
            f"the gradient of the first batch was computed {trial.initial_gradients} times, where "
            f"needs_initial_gradient is {sparsifier.needs_initial_gradient}, and initial_passes "
            f"{sparsifier.initial_passes}",
        )
    counts = [sparsifier.dense_gradient_steps(steps) for steps in range(TOTAL_STEPS + 1)]
    for steps, (before, after) in enumerate(pairwise(counts), start=1):
        if after - before not in (0, 1) or counts[0] != 0:
            raise broken(
                trial,
                f"dense_gradient_steps({steps - 1}) is {before}, dense_gradient_steps({steps}) is "
                f"{after}: a step has dense gradients or has not",
            )


def _noise_where_undeclared(trial: Trial, name: str, gradient: Tensor) -> Tensor:
    mask = trial.masks.get(name)
    if mask is None or trial.declares(trial.step + 1):
        return gradient
    rng = torch.Generator().manual_seed(derive(1, name, trial.step))
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
