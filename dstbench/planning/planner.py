"""What a grid would cost, before anything is loaded or trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import TypeVar

import torch
from torch import Tensor

from dstbench.cache import canonical
from dstbench.cell import DENSE, RESERVED, SMALL_DENSE, Cell
from dstbench.counting.budget import steps_for
from dstbench.counting.counts import Network, count, measure, sparsifiable_flops
from dstbench.counting.flops import Flops
from dstbench.errors import DstbenchError
from dstbench.execution.outline import Undertaking, undertaking
from dstbench.planning.speed import Speed, measure_speed
from dstbench.plugins.isolation import FAILURES
from dstbench.plugins.registry import Plugins
from dstbench.records import Counts
from dstbench.sparsity import Sparsifier
from dstbench.store.packed import mask_bytes

UNKNOWN = (
    'with budget = "time", the number of steps is not known beforehand: it is measured when the '
    "cell is run, and its training takes about the time of the dense one"
)

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """What one cell would cost; ``None`` is what cannot be told."""

    cell: Cell
    counts: Counts | None = None
    """Counts; where the number of steps is not known, of a training with those of the settings."""
    steps: int | None = None
    """Number of optimizer steps; ``None`` where they are found out only when the cell is run."""
    sparsifiable_flops: Flops | None = None
    """The part of the FLOPs of an inference that masks can save."""
    checkpoint_bytes: int | None = None
    """Size of the largest checkpoint: weights, their average, AdamW's moments, masks."""
    kept_bytes: int | None = None
    """Size of the trained weights."""
    kept_ratio: float | None = None
    """Size of the trained weights relative to dense."""
    training_seconds: float | None = None
    sampling_seconds: float | None = None
    """Time of the denoiser's calls alone."""
    assumed: str = ""
    """What was assumed of the data, where they decide the counts."""
    problem: str = ""
    """Why there is something that cannot be told."""

    @property
    def samples(self) -> int:
        """How many the cell generates to be scored, those of the untrained denoiser included."""
        evaluation = self.cell.evaluation_settings
        twice = self.cell.sparsifier == DENSE and evaluation.untrained
        return evaluation.samples * (2 if twice else 1)

    @property
    def training_flops(self) -> float | None:
        """FLOPs of the training; ``None`` where its number of steps is not known either."""
        return self.counts.training_flops if self.counts and self.steps else None

    @property
    def sampling_flops(self) -> float | None:
        """FLOPs of generating all these samples."""
        return self.samples * self.counts.sample_flops if self.counts else None


def plan(cells: Sequence[Cell], plugins: Plugins, device: torch.device | None = None) -> list[Plan]:
    """What each of the cells would cost, in their order; no data are needed.

    With a ``device`` there are times too, extrapolated from a few dense steps taken there. Masks
    save none of it; data preparation, decoding and scoring are left out.
    """
    planner = _Planner(plugins, device)
    return [planner.plan(cell) for cell in cells]


@dataclass(frozen=True)
class _Measured:
    network: Network
    state_bytes: int
    """Size of all parameters and buffers."""
    parameter_bytes: int
    element_sizes: Mapping[str, int]
    """Bytes of an element of each sparsifiable weight, by parameter name."""

    def saved(self, active: Mapping[str, int], tensors: int) -> int:
        """Bytes that are saved where so many ``tensors`` of each masked weight's shape are packed,
        of which ``active`` elements are kept."""
        saved = 0
        for name, kept in active.items():
            elements = prod(self.network.shapes[name])
            if kept < elements:
                saved += tensors * (elements - kept) * self.element_sizes[name]
                saved -= mask_bytes(elements)
        return saved


@dataclass(frozen=True)
class _Counted:
    counts: Counts
    steps: int
    sparsifiable_flops: Flops
    phases: Sequence[Mapping[str, int]]
    """Number of active elements of each masked weight, in each phase of the training."""
    packed: int
    """How many tensors of a masked weight's shape are packed in a checkpoint: the weight, its
    average, and AdamW's two moments unless those of inactive weights are kept."""


@dataclass
class _Planner:
    """Each network is counted, and timed, once; what fails is not tried again."""

    plugins: Plugins
    device: torch.device | None
    _tasks: dict[str, Undertaking | str] = field(default_factory=dict)
    _measured: dict[str, _Measured | str] = field(default_factory=dict)
    _counts: dict[str, _Counted | str] = field(default_factory=dict)
    _speeds: dict[str, Speed | str] = field(default_factory=dict)

    def plan(self, cell: Cell) -> Plan:
        on = cell.model, cell.model_settings, cell.dataset, cell.dataset_settings
        whole = _once(self._tasks, canonical(on), lambda: undertaking(cell, self.plugins))
        if isinstance(whole, str):
            return Plan(cell, problem=whole)
        key = of_full = canonical([cell.model, cell.model_settings, whole.items.shape])
        task: Undertaking | str = whole
        if cell.sparsifier == SMALL_DENSE:
            key = canonical([key, cell.sparsity])
            task = _once(self._tasks, key, lambda: whole.of(cell))
        if isinstance(task, str):
            return Plan(cell, problem=task)
        full = _once(self._measured, of_full, lambda: _measure(whole))
        measured = _once(self._measured, key, lambda: _measure(task))
        if isinstance(full, str):
            return Plan(cell, problem=full)
        if isinstance(measured, str):
            return Plan(cell, problem=measured)
        method = cell.sparsifier, cell.sparsifier_settings, cell.sparsity, cell.training
        counted = _once(
            self._counts,
            canonical([key, *method]),
            lambda: self._count(cell, measured.network, full.network),
        )
        if isinstance(counted, str):
            return Plan(cell, problem=counted)
        kept = measured.state_bytes - measured.saved(counted.phases[-1], 1)
        by_time = cell.training_settings.budget == "time" and cell.sparsifier != DENSE
        plan = Plan(
            cell,
            counted.counts,
            None if by_time else counted.steps,
            counted.sparsifiable_flops,
            checkpoint_bytes=2 * (measured.state_bytes + measured.parameter_bytes)
            - min(measured.saved(active, counted.packed) for active in counted.phases),
            kept_bytes=kept,
            kept_ratio=kept / full.state_bytes,
            assumed=task.items.assumption,
            problem=UNKNOWN if by_time else "",
        )
        return self._timed(plan, task, key, measured.network.calls_per_sample)

    def _sparsifier(self, cell: Cell, steps: int) -> Sparsifier | None:
        if cell.sparsifier in RESERVED:
            return None
        cls: type[Sparsifier] = self.plugins.find("sparsifier", cell.sparsifier)
        return cls(cell.sparsity, total_steps=steps, **cell.sparsifier_settings)

    def _count(self, cell: Cell, network: Network, full: Network) -> _Counted:
        training = cell.training_settings

        def counts(steps: int) -> Counts:
            made = self._sparsifier(cell, steps)
            return count(network, made, training, steps=steps, full=full)

        steps = training.steps
        if training.budget == "flops" and cell.sparsifier != DENSE:
            budget = counts(steps).dense_training_flops
            steps = steps_for(lambda steps: counts(steps).training_flops, budget, steps)
        sparsifier = self._sparsifier(cell, steps)
        phases: list[Mapping[str, int]] = [{}]
        if sparsifier:
            masked = {n: network.shapes[n] for n in sparsifier.masked_names(network.shapes)}
            phases = [active for _, active in sparsifier.count_phases(masked)]
        keeps = sparsifier and getattr(sparsifier.settings, "grown_state", "") == "keep"
        return _Counted(
            counts(steps),
            steps,
            sparsifiable_flops(network, sparsifier, full),
            phases,
            packed=2 if keeps else 4,
        )

    def _timed(self, plan: Plan, task: Undertaking, key: str, calls_per_sample: int) -> Plan:
        device = self.device
        if device is None:
            return plan
        training = plan.cell.training_settings
        batch = plan.cell.evaluation_settings.batch_size
        speed = _once(
            self._speeds,
            canonical([key, training.model_dump(mode="json") | {"steps": None}, batch]),
            lambda: measure_speed(task.outline(device), training, batch, device),
        )
        if isinstance(speed, str):
            return replace(plan, problem=f"not timed: {speed}")
        return replace(
            plan,
            training_seconds=(plan.steps or training.steps) * speed.training_step,
            sampling_seconds=plan.samples * calls_per_sample * speed.call,
        )


def _measure(task: Undertaking) -> _Measured:
    outline = task.outline(torch.device("meta"))
    # Tracing takes real tensors, but not their values; memory that nobody writes to is free.
    denoiser = outline.denoiser.to_empty(device="cpu")
    for buffer in denoiser.buffers():
        buffer.zero_()
    inputs = tuple(
        torch.zeros_like(each, device="cpu") if isinstance(each, Tensor) and each.is_meta else each
        for each in outline.inputs
    )
    sparsifiable = task.model.sparsifiable(denoiser)
    return _Measured(
        measure(denoiser, sparsifiable, inputs, outline.calls_per_sample),
        sum(tensor.nbytes for tensor in denoiser.state_dict().values()),
        sum(parameter.nbytes for parameter in denoiser.parameters()),
        {name: weight.element_size() for name, weight in sparsifiable.items()},
    )


def _once(known: dict[str, T | str], key: str, make: Callable[[], T]) -> T | str:
    """What ``make`` makes, or why it failed: asked once, then known."""
    if key not in known:
        try:
            known[key] = make()
        except DstbenchError as error:
            known[key] = str(error)
        except FAILURES as error:  # a plugin's; the other networks are well
            known[key] = f"{type(error).__name__}: {error}"
    return known[key]
