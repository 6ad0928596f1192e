"""The optimizer, learning rate and averaged weights that a training's settings ask for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RAdam
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dstbench.settings import TrainingSettings

Weights = tuple[Tensor, ...] | list[Tensor]


def build_optimizer(parameters: Iterable[nn.Parameter], settings: TrainingSettings) -> Optimizer:
    """The optimizer of the settings for these parameters."""
    parameters, rate = list(parameters), settings.learning_rate
    betas, decay = settings.betas, settings.weight_decay
    match settings.optimizer:
        case "adamw":
            return AdamW(parameters, lr=rate, betas=betas, weight_decay=decay, fused=True)
        case "adam":
            return Adam(parameters, lr=rate, betas=betas, weight_decay=decay, fused=True)
        case "radam":
            return RAdam(parameters, lr=rate, betas=betas, weight_decay=decay)
        case "sgd":
            return SGD(
                parameters, lr=rate, momentum=settings.momentum, weight_decay=decay, fused=True
            )


def set_learning_rate(optimizer: Optimizer, settings: TrainingSettings, step: int) -> None:
    """Give the optimizer the learning rate of the step that ``step`` others came before.

    The step's number alone determines it, so that there is no state to be saved.
    """
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate * learning_rate_factor(settings, step)


def learning_rate_factor(settings: TrainingSettings, step: int) -> float:
    """The factor of the learning rate in the step that ``step`` others came before."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    step -= settings.warmup_steps
    match settings.learning_rate_schedule:
        case "constant":
            return 1.0
        case "cosine":
            progress = min(1.0, step / (settings.steps - settings.warmup_steps))
            return (1 + math.cos(math.pi * progress)) / 2
        case "step":
            assert settings.decay_every is not None
            return settings.decay_factor ** (step // settings.decay_every)


def build_average(denoiser: nn.Module, settings: TrainingSettings) -> AveragedModel:
    """A copy of the denoiser that keeps the exponential moving average of its weights.

    The first update copies the weights; the n-th has the weight of its average decay by the
    settings' ``ema_decay``, or less while ``ema_warmup`` lasts.
    """
    if settings.ema_warmup:
        return AveragedModel(denoiser, multi_avg_fn=_warming_up(settings.ema_decay))
    average = get_ema_multi_avg_fn(settings.ema_decay)  # type: ignore[no-untyped-call]
    return AveragedModel(denoiser, multi_avg_fn=average)


def _warming_up(decay: float) -> Callable[[Weights, Weights, Tensor | int], None]:
    def average(averaged: Weights, weights: Weights, updates: Tensor | int) -> None:
        update = int(updates) + 1
        now = min(decay, (1 + update) / (10 + update))
        get_ema_multi_avg_fn(now)(averaged, weights, updates)  # type: ignore[no-untyped-call]

    return average
