"""How long a dense denoiser takes on this machine, found out without data."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dstbench.cache import Cache
from dstbench.contracts import Data, Model, Outline, Split, Workspace
from dstbench.execution.training import Trainer
from dstbench.settings import PluginSettings, TrainingSettings

REPETITIONS = 5
"""Number of repetitions that are timed, after one more to warm up; fewer where they take longer
than ``ENOUGH``."""

ENOUGH = 1.0
"""Seconds of a batch above which its time is taken to grow with its size, and of all repetitions
together."""


@dataclass(frozen=True)
class Speed:
    """Seconds of wall clock."""

    training_step: float
    """Time of one optimizer step on a whole batch."""
    call: float
    """Time per example of a denoiser call on a batch, as in sampling."""


def measure_speed(
    outline: Outline, training: TrainingSettings, sampling_batch: int, device: torch.device
) -> Speed:
    """Time dense training steps and denoiser calls, with random inputs.

    ``outline`` is on ``device``, and its denoiser is trained by this. Batches start at one example
    and double until they are whole, or take more than a second and the rest is extrapolated: too
    much by what does not depend on the batch, such as the optimizer's part.
    """
    batch = training.batch_size
    return Speed(
        training_step=_seconds(batch, lambda size: _step(outline, training, size, device)),
        call=_seconds(sampling_batch, lambda size: _call(outline, size, device)) / sampling_batch,
    )


def _seconds(batch: int, prepare: Callable[[int], Callable[[], object]]) -> float:
    """The time of a batch; ``prepare(size)`` returns the action to time for one of that size."""
    for size in _doubling(batch):
        seconds = _median_seconds(prepare(size))
        if seconds > ENOUGH:
            break
    return seconds * batch / size


def _doubling(last: int) -> Iterator[int]:
    """1, 2, 4, …, ``last``."""
    size = 1
    while size < last:
        yield size
        size *= 2
    yield last


def _median_seconds(action: Callable[[], object]) -> float:
    action()
    times: list[float] = []
    while len(times) < REPETITIONS and sum(times) < ENOUGH:
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _step(
    outline: Outline, training: TrainingSettings, size: int, device: torch.device
) -> Callable[[], object]:
    at_a_time = math.ceil(training.batch_size / training.micro_batches)
    settings = training.model_copy(
        update={"batch_size": size, "micro_batches": math.ceil(size / at_a_time)}
    )
    trainer = Trainer(_Outlined(outline, size, device), outline.denoiser, None, settings, seed=0)
    return trainer.take_step


def _call(outline: Outline, size: int, device: torch.device) -> Callable[[], object]:
    inputs = _random(outline.inputs, size)
    denoiser = outline.denoiser.eval()

    @torch.no_grad()
    def call() -> None:
        denoiser(*inputs)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return call


class _Outlined(Model):
    """What an outline tells of a model, with random inputs for data and a loss of any output."""

    name = "outlined"
    accepts = "anything"

    def __init__(self, outline: Outline, examples: int, device: torch.device) -> None:
        data = Data(range(examples), (), "", lambda items: torch.empty(0))
        super().__init__(PluginSettings(), data, Workspace(device, Cache()))
        self.outlined = outline

    def build(self) -> nn.Module:
        return self.outlined.denoiser

    def batch(self, split: Split, indices: Tensor) -> tuple[Any, ...]:
        return _random(self.outlined.inputs, len(indices))

    def loss(self, denoiser: nn.Module, batch: tuple[Any, ...], rng: torch.Generator) -> Tensor:
        output: Tensor = denoiser(*batch)
        return output.float().square().mean()

    def sample(
        self, denoiser: nn.Module, count: int, batch_size: int, rng: torch.Generator
    ) -> Tensor:
        raise NotImplementedError("there is nothing to sample")

    def example(self) -> tuple[Any, ...]:
        return self.outlined.inputs

    @property
    def calls_per_sample(self) -> int:
        return self.outlined.calls_per_sample


def _random(inputs: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    """As many examples as ``count`` in place of each input's one; noise in place of floats."""
    repeated = (x.repeat_interleave(count, 0) if isinstance(x, Tensor) else x for x in inputs)
    return tuple(
        torch.randn_like(x) if isinstance(x, Tensor) and x.is_floating_point() else x
        for x in repeated
    )
