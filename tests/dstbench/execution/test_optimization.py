"""Learning rates, optimizers and averages by hand."""

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR

from dstbench.execution.optimization import (
    build_average,
    build_optimizer,
    learning_rate_factor,
    set_learning_rate,
)
from dstbench.settings import TrainingSettings


def factors(steps: int, **settings: Any) -> list[float]:
    training = TrainingSettings(steps=steps, **settings)
    return [learning_rate_factor(training, step) for step in range(steps)]


def test_without_a_schedule_the_rate_is_constant() -> None:
    assert factors(5) == [1.0] * 5


def test_the_warm_up_is_linear_and_ends_at_the_full_rate() -> None:
    assert factors(6, warmup_steps=4) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_a_cosine_falls_to_zero_after_the_last_step() -> None:
    assert factors(4, learning_rate_schedule="cosine") == pytest.approx(
        [1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]
    )
    assert factors(6, learning_rate_schedule="cosine", warmup_steps=2) == pytest.approx(
        [0.5, 1.0, 1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]
    )


def test_training_that_goes_on_after_the_last_step_stays_at_zero() -> None:
    training = TrainingSettings(steps=4, learning_rate_schedule="cosine")
    assert [learning_rate_factor(training, step) for step in (4, 5, 9)] == [0.0] * 3


def test_steps_by_a_factor() -> None:
    by_step = {"learning_rate_schedule": "step", "decay_every": 2, "decay_factor": 0.5}
    assert factors(6, **by_step) == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    assert factors(6, warmup_steps=3, **by_step) == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 0.5])


@pytest.mark.parametrize(
    ("settings", "schedule"),
    [
        ({"learning_rate_schedule": "cosine"}, lambda optimizer: CosineAnnealingLR(optimizer, 20)),
        (
            {"learning_rate_schedule": "step", "decay_every": 7, "decay_factor": 0.9},
            lambda optimizer: StepLR(optimizer, 7, 0.9),
        ),
    ],
)
def test_rates_are_those_of_torchs_schedules(settings: dict[str, Any], schedule: Any) -> None:
    training = TrainingSettings(steps=20, learning_rate=0.3, **settings)
    weights = [nn.Parameter(torch.zeros(1))]
    ours, theirs = (build_optimizer(weights, training) for _ in range(2))
    torchs = schedule(theirs)
    for step in range(20):
        set_learning_rate(ours, training, step)
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"])
        theirs.step()
        torchs.step()


@pytest.mark.parametrize(
    ("settings", "cls", "expected"),
    [
        ({}, torch.optim.AdamW, {"betas": (0.9, 0.999), "weight_decay": 0.01}),
        ({"optimizer": "adam", "betas": (0.5, 0.9)}, torch.optim.Adam, {"betas": (0.5, 0.9)}),
        ({"optimizer": "radam"}, torch.optim.RAdam, {"betas": (0.9, 0.999)}),
        ({"optimizer": "sgd", "momentum": 0.5}, torch.optim.SGD, {"momentum": 0.5}),
        ({"optimizer": "sgd", "weight_decay": 0.1}, torch.optim.SGD, {"weight_decay": 0.1}),
    ],
)
def test_optimizers_are_torchs(
    settings: dict[str, Any], cls: type[Any], expected: dict[str, Any]
) -> None:
    training = TrainingSettings(learning_rate=0.25, **settings)
    optimizer = build_optimizer([nn.Parameter(torch.zeros(2))], training)
    assert type(optimizer) is cls
    (group,) = optimizer.param_groups
    assert group | expected | {"lr": 0.25} == group


def test_the_average_warms_up() -> None:
    """Decays 3/12, 4/13, … of the second, third, … update, until ema_decay is less."""
    network = nn.Linear(1, 1, bias=False)
    average = build_average(network, TrainingSettings(ema_decay=0.3, ema_warmup=True))
    seen = []
    for value in (1.0, 2.0, 4.0, 8.0):
        network.weight.data.fill_(value)
        average.update_parameters(network)
        seen.append(average.module.weight.item())
    second = 3 / 12 * 1 + 9 / 12 * 2
    third = 0.3 * second + 0.7 * 4  # 4/13 would be more than ema_decay
    assert seen == pytest.approx([1.0, second, third, 0.3 * third + 0.7 * 8])


def test_without_a_warm_up_the_first_step_outlasts_a_short_training() -> None:
    shares = {}
    for warmup in (False, True):
        network = nn.Linear(1, 1, bias=False)
        average = build_average(network, TrainingSettings(ema_warmup=warmup))
        for step in range(2000):
            network.weight.data.fill_(float(step == 0))
            average.update_parameters(network)
        shares[warmup] = average.module.weight.item()
    assert shares[False] == pytest.approx(0.9999**1999, rel=1e-3)
    assert shares[True] < 1e-12


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"optimizer": "lion"}, "'adamw', 'adam', 'radam' or 'sgd'"),
        ({"learning_rate_schedule": "linear"}, "'constant', 'cosine' or 'step'"),
        ({"steps": 10, "warmup_steps": 10}, "warmup_steps is 10: it must be less than steps, 10"),
        ({"learning_rate_schedule": "step"}, "decay_every must say how many steps"),
        ({"decay_every": 5}, "decay_every is 5, but learning_rate_schedule 'constant' does not"),
        (
            {"learning_rate_schedule": "cosine", "decay_factor": 0.5},
            "decay_factor is 0.5, but learning_rate_schedule 'cosine' does not use it",
        ),
        ({"momentum": 0.5}, "momentum is 0.5, but optimizer 'adamw' does not use it"),
        ({"optimizer": "sgd", "betas": (0.5, 0.9)}, "betas is .*, but optimizer 'sgd' does not"),
        ({"betas": (0.9, 1.0)}, "less than 1"),
        ({"warmup_steps": -1}, "greater than or equal to 0"),
    ],
)
def test_what_cannot_be(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        TrainingSettings(**settings)


def test_settings_that_came_later_are_written_down_where_they_are_not_the_default() -> None:
    later = {
        "optimizer": "sgd",
        "learning_rate_schedule": "step",
        "warmup_steps": 3,
        "decay_every": 5,
        "decay_factor": 0.5,
        "momentum": 0.8,
        "ema_warmup": True,
    }
    assert not TrainingSettings().model_dump(mode="json").keys() & later.keys()
    assert TrainingSettings(**later).model_dump(mode="json").items() >= later.items()
