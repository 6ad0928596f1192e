"""The number of a cell's optimizer steps, where FLOPs or time are its budget."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import torch

from dstbench.cell import DENSE, Cell
from dstbench.contracts import Model
from dstbench.counting.budget import check_budget, steps_for
from dstbench.counting.counts import Network, count
from dstbench.errors import SparsityError
from dstbench.execution.parts import Parts
from dstbench.execution.timing import paired_ratio, update_cost
from dstbench.execution.training import Trainer
from dstbench.records import Budget, Ratio, UpdateCost
from dstbench.settings import MOST_STEPS, TrainingSettings
from dstbench.sparsity import DynamicSparsifier, Sparsifier
from dstbench.store.folder import CellFolder
from dstbench.store.sealed import load_sealed

SECONDS = 10.0
"""Seconds that a step is timed against the dense twin's at most, before the training."""

UPDATES = 3
"""Topology updates that are timed, with two steps before and after each."""


def lasting(training: TrainingSettings, budget: Budget | None) -> TrainingSettings:
    """The settings of a training that lasts as long as its budget.

    Raises :class:`ValueError` where they do not fit so many steps.
    """
    if budget is None:
        return training
    return TrainingSettings(**training.model_dump() | {"steps": budget.steps})


def budget_of(
    cell: Cell,
    parts: Parts,
    folder: CellFolder,
    *,
    models: tuple[Model, Model],
    networks: tuple[Network, Network],
) -> Budget | None:
    """How long a cell is trained whose budget is not a number of steps: as its checkpoint says,
    else counted or measured now, by trainings that are given up.

    Args:
        models: the one that is trained, and the one of the dense network: the same, unless that is
            wider.
        networks: the counts of both.
    """
    training = cell.training_settings
    if training.budget == "steps" or cell.sparsifier == DENSE:
        return None
    if known := kept_budget(folder):
        return known

    def trial(model: Model, sparsifier: Sparsifier | None) -> Trainer:
        return Trainer(model, parts.build(model, cell), sparsifier, training, cell.seed)

    model, full = models
    if training.budget == "flops":
        return by_flops(
            *networks,
            training,
            partial(parts.sparsifier, cell),
            lambda: trial(model, parts.sparsifier(cell)).sparsifier,
        )
    sparsifier = parts.sparsifier(cell)
    if sparsifier:
        check_budget("time", sparsifier)
    return by_time(trial(model, sparsifier), trial(full, None))


def kept_budget(folder: CellFolder) -> Budget | None:
    """The budget of the training that the cell's checkpoint is of; ``None`` where there is none."""
    for path in folder.checkpoints:
        with suppress(Exception):  # of a damaged one, which is set aside when it is resumed
            state = load_sealed(path, torch.device("cpu"))
            if state["cell"] == folder.path.name:
                return Budget.model_validate(state["budget"])
    return None


def by_flops(
    network: Network,
    full: Network,
    training: TrainingSettings,
    sparsifier: Callable[[int], Sparsifier | None],
    attached: Callable[[], Sparsifier | None],
) -> Budget:
    """As many steps as take at most the FLOPs of the dense training.

    Args:
        full: the dense network; the same as ``network``, unless that is narrower.
        sparsifier: the cell's for a training of so many steps, attached to nothing.
        attached: the cell's, attached: asked where the numbers of its connections do not follow
            from shapes.
    """

    def flops(steps: int) -> float:
        made = known or sparsifier(steps)
        return count(network, made, training, steps=steps, full=full).training_flops

    known: Sparsifier | None = None
    try:
        flops(training.steps)
    except SparsityError:
        known = attached()
    budget = count(full, None, training).dense_training_flops
    return Budget(steps=steps_for(flops, budget, training.steps))


def by_time(trial: Trainer, twin: Trainer) -> Budget:
    """As many steps as take the time of the dense training, topology updates included.

    The trial is a training of the cell that is given up afterwards, and ``twin`` one of the dense
    network; both take turns.
    """
    sparsifier, steps = trial.sparsifier, trial.settings.steps

    def ordinary() -> None:
        if sparsifier:
            sparsifier.step = 0  # after which there is no update, unless one follows every step
        trial.take_step()

    device = trial.model.workspace.device
    step = paired_ratio(ordinary, twin.take_step, device=device, seconds=SECONDS)
    update = _update(trial, sparsifier, step) if sparsifier else None
    cost = step.ratio + (update.per_step if update else 0)
    return Budget(steps=min(max(1, round(steps / cost)), MOST_STEPS), step=step, update=update)


def _update(trial: Trainer, sparsifier: Sparsifier, step: Ratio) -> UpdateCost | None:
    """What the topology updates of the training add to it."""
    if not isinstance(sparsifier, DynamicSparsifier) or not sparsifier.sparsity:
        return None
    steps = trial.settings.steps
    updates = [at for at in range(1, steps + 1) if sparsifier.updates_at(at)]
    if not updates or updates[0] < 3:
        return None
    trial.step_times, trial.updated_at = [], []
    for _ in range(UPDATES):
        sparsifier.step = updates[0] - 3
        for _ in range(5):
            trial.take_step()
    times = [each.wall if step.clock == "wall" else each.cpu for each in trial.step_times]
    cost = update_cost(times, trial.updated_at)
    if cost is None:
        return None
    return UpdateCost(dense_steps=max(0.0, cost) * step.ratio, interval=steps / len(updates))
