"""A trained cell against its dense twin: times, and bytes of state.

The dense twin is the same network without masks, trained as a dense cell is. Both take turns in one
process, after all that is kept of the cell's result has been saved.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from dstbench.contracts import Model
from dstbench.execution.sampling import draw_samples
from dstbench.execution.timing import ENOUGH_ROUNDS, paired_ratio, update_cost
from dstbench.execution.training import Trainer
from dstbench.records import Measurement, Sizes, UpdateCost
from dstbench.sparsity import Sparsifier

LEAST_SAMPLES = 16
"""Samples of a timed call, however long they take: fewer would not fill the vectors that kernels
compute with, as whole batches do."""


def measure_against_dense(
    trainer: Trainer,
    full: Model,
    *,
    seconds: float,
    sampling_batch: int,
    seconds_per_sample: float,
) -> Measurement:
    """Time a trained cell's optimizer step and its sampling call against its dense twin.

    The twin starts from the cell's averaged weights, unless it is wider, and sees the same batches.
    The trainer goes on to train: what is to be kept of it has to be kept before. Torch's own
    generators are left as they were.

    Args:
        full: the twin's model; the trainer's, unless that is narrower.
        seconds: how long that may take, half of it for the step and the rest for sampling; three
            rounds are taken in any case.
        sampling_batch: samples of a call, or fewer, but a multiple of 16, with which the vectors of
            sparse kernels are full, where they would take too long.
        seconds_per_sample: time of a sample, as far as it is known.
    """
    start, device, load = time.monotonic(), trainer.model.workspace.device, _load()
    costs = {clock: _update(trainer, clock == "wall") for clock in ("wall", "cpu")}
    with _own_generators(trainer):
        twin = _dense_twin(trainer, full)
        step = paired_ratio(trainer.take_step, twin.take_step, device=device, seconds=seconds / 2)
        of_step = kernels_in_use(trainer)
        if trainer.sparsifier:  # as what is kept of it is
            trainer.sparsifier.unpack()
        calls = 2 * (1 + ENOUGH_ROUNDS)
        affordable = int(seconds / 2 / (calls * seconds_per_sample))
        whole = affordable // LEAST_SAMPLES * LEAST_SAMPLES
        count = min(sampling_batch, max(LEAST_SAMPLES, whole))
        sample = paired_ratio(
            lambda: _sample(trainer, count),
            lambda: _sample(twin, count),
            device=device,
            seconds=seconds - (time.monotonic() - start),
        )
        of_sample = kernels_in_use(trainer)
    cost = costs[step.clock]
    update = UpdateCost(dense_steps=cost[0] * step.ratio, interval=cost[1]) if cost else None
    return Measurement(
        step=step,
        sample=sample,
        samples=count,
        update=update,
        kernels=of_step if of_step == of_sample else f"{of_step}; sampling: {of_sample}",
        threads=torch.get_num_threads(),
        load_before=load,
        load_after=_load(),
    )


def kernels_in_use(trainer: Trainer) -> str:
    """Which kernels the latest forward pass of a sparse cell went through."""
    return trainer.sparsifier.kernels.describe() if trainer.sparsifier else "dense"


def sizes(trainer: Trainer, model_bytes: int, full: Model) -> Sizes:
    """The most bytes that training holds at a time, activations aside, and those of the network
    that is kept; both also for the dense twin, of the model ``full``."""
    state, twin = _state_bytes(trainer), trainer
    if full is not trainer.model:
        with _own_generators(trainer):
            twin = _dense_twin(trainer, full)
            twin.take_step()  # which makes the optimizer's state
    return Sizes(
        state_bytes=state,
        dense_state_bytes=_unmasked_bytes(twin),
        model_bytes=model_bytes,
        dense_model_bytes=_bytes(twin.averaged.module.state_dict().values()),
    )


def _state_bytes(trainer: Trainer) -> int:
    sparsifier = trainer.sparsifier
    if sparsifier is None:
        return _unmasked_bytes(trainer)
    trainer.pack()
    held = _unmasked_bytes(trainer) + sparsifier.update_bytes
    sparsifier.unpack()
    return held + _bytes_of_masks(sparsifier)


def _unmasked_bytes(trainer: Trainer) -> int:
    trained = [weight for weight in trainer.denoiser.parameters() if weight.requires_grad]
    return _bytes(
        [
            *trainer.denoiser.state_dict().values(),
            *trainer.averaged.state_dict().values(),
            *_tensors(trainer.optimizer),
        ]
    ) + sum(weight.nbytes for weight in trained)


def _bytes_of_masks(sparsifier: Sparsifier) -> int:
    """Of the masks, of the sparse kernels' indices, and of what the method remembers beside them,
    such as a momentum."""
    state = sparsifier.state_dict()
    remembered = _nested([value for key, value in state.items() if key not in ("masks", "rng")])
    masks = [layer.mask for layer in sparsifier.layers]
    return _bytes([*masks, *remembered]) + sparsifier.kernels.bytes


def _nested(value: Any) -> Iterator[Tensor]:
    """The tensors in nested dictionaries and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _nested(each)


def _own_generators(trainer: Trainer) -> AbstractContextManager[None]:
    """Leave torch's own generators as they were."""
    device = trainer.model.workspace.device
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def _dense_twin(trainer: Trainer, full: Model) -> Trainer:
    network: nn.Module = full.build()
    if full is trainer.model:
        network.load_state_dict(trainer.averaged.module.state_dict())
    twin = Trainer(full, network, None, trainer.settings, trainer.seed)
    twin.step = trainer.step  # so that both see the same batches, whose sizes may differ
    return twin


def _sample(trainer: Trainer, count: int) -> None:
    draw_samples(trainer.model, trainer.averaged.module, seed=0, count=count, batch_size=count)


def _update(trainer: Trainer, by_wall: bool) -> tuple[float, float] | None:
    """What a topology update costs in ordinary steps of this process, and the steps between two."""
    times = [each.wall if by_wall else each.cpu for each in trainer.step_times]
    cost = update_cost(times, trainer.updated_at)
    if cost is None or trainer.sparsifier is None:
        return None
    return cost, trainer.step / trainer.sparsifier.topology_updates


def _tensors(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    for state in optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, Tensor))


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Size of all tensors together, each storage once."""
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


def _load() -> float | None:
    """Processes that have been running or waiting, on average over the last minute, where the
    system tells."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
