"""Drop-and-grow: what all dynamic methods share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from dstbench.errors import SparsityError
from dstbench.sparsity import schedules
from dstbench.sparsity.layers import Layer, apply_mask_
from dstbench.sparsity.optimizers import start_second_moments_at_mean
from dstbench.sparsity.schedules import Schedule
from dstbench.sparsity.selection import largest
from dstbench.sparsity.sparsifier import Sparsifier


class DynamicSparsifier(Sparsifier, ABC):
    """Drop-and-grow: every so many steps, a fraction of each layer's active weights is replaced.

    A method is a subclass that says where to grow (:meth:`growth_scores`), and whether it needs
    the gradient of inactive connections for that (:attr:`needs_dense_gradient`). A topology update
    follows the optimizer's step, in every layer: the active weights of smallest magnitude are
    dropped, and as many connections grown among all that are not kept (Evci et al. 2020,
    Algorithm 1). One that is dropped and grown again in the same update keeps its value and
    optimizer state; any other grown connection starts at zero.
    """

    needs_dense_gradient: ClassVar[bool] = False
    """Whether :meth:`growth_scores` finds the gradient of all connections in
    ``layer.dense_gradient``; the steps before an update then cost more."""

    class Settings(Sparsifier.Settings):
        prune_rate: float = Field(
            0.5, ge=0, le=1, description="fraction of a layer's active weights that an update drops"
        )
        prune_schedule: Schedule = Field(
            "cosine", description="how the prune rate falls until exploration stops"
        )
        exploration_frequency: int = Field(
            100, ge=1, description="optimizer steps between two topology updates"
        )
        stop_fraction: float = Field(
            0.75, ge=0, le=1, description="fraction of the training after which exploration stops"
        )
        grown_state: Literal["zero", "mean", "keep"] = Field(
            "zero",
            description="optimizer state of grown weights: zero (Adam's first updates of them are "
            "then up to 3.2 times the learning rate, because its step count is large already), "
            "mean (zero, but the second moment is the layer's mean: small first updates), "
            "keep (whatever was left there when the connection was dropped)",
        )

    def __init__(self, sparsity: float, *, total_steps: int, seed: int = 0, **settings: Any):
        super().__init__(sparsity, total_steps=total_steps, seed=seed, **settings)
        self.updated_at = 0
        """Optimizer step that the latest topology update followed; 0: none yet."""
        self.connections_changed = 0
        """Number of connections that the latest topology update replaced by others."""
        self._accumulated: dict[str, tuple[Tensor, Tensor]] = {}
        """Gradient of each layer in a step before an update, and the sum of all its elements over
        the micro-batches so far; by parameter name."""

    __init__.__doc__ = Sparsifier.__init__.__doc__

    @abstractmethod
    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        """Scores in the shape of ``layer.weight``; connections with the highest are grown.

        Scores of active connections that are kept are ignored. All randomness comes from ``rng``,
        which is on the weight's device.
        """

    def survival_scores(self, layer: Layer) -> Tensor:
        """Scores in the shape of ``layer.weight``; active weights with the lowest are dropped."""
        return layer.weight.abs()

    def updates_at(self, step: int) -> bool:
        """Whether a topology update follows optimizer step ``step`` (the first is 1)."""
        return bool(
            step % self.settings.exploration_frequency == 0
            and step < self.settings.stop_fraction * self.total_steps
        )

    def prune_rate_at(self, step: int) -> float:
        """The fraction (0 to 1) of each layer's active weights that the update after ``step``
        drops."""
        progress = step / (self.settings.stop_fraction * self.total_steps)
        initial = self.settings.prune_rate
        return schedules.prune_rate_at(self.settings.prune_schedule, initial, progress)

    def dense_gradient_steps(self, steps: int) -> int:
        if not (self.needs_dense_gradient and self.sparsity):
            return 0
        return sum(map(self.updates_at, range(1, steps + 1)))

    def state_dict(self) -> dict[str, Any]:
        counters = {"updates": self.topology_updates, "skipped": self.skipped_updates}
        return super().state_dict() | counters

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.topology_updates = state["updates"]
        self.skipped_updates = state["skipped"]

    def _gradient_accumulated(self, layer: Layer, gradient: Tensor) -> None:
        if self.updates_at(self.step + 1):
            earlier, total = self._accumulated.get(layer.name, (None, 0))
            if earlier is not gradient:  # it was reset: the optimizer's step was left out
                del layer.dense_gradient
                total = 0
            self._accumulated[layer.name] = gradient, total + gradient.sum()
            if self.needs_dense_gradient:
                self._accumulate_dense_gradient(layer, gradient)
        super()._gradient_accumulated(layer, gradient)

    def _accumulate_dense_gradient(self, layer: Layer, gradient: Tensor) -> None:
        if not layer.has_dense_gradient:
            layer.dense_gradient = torch.empty_like(layer.weight).copy_(gradient)
        else:  # the active weights' gradient holds the earlier micro-batches already
            apply_mask_(layer.dense_gradient, ~layer.mask)
            layer.dense_gradient.add_(gradient)

    @torch.no_grad()
    def _after_optimizer_step(self, *_: Any) -> None:
        super()._after_optimizer_step()
        if self.sparse_layers and self.updates_at(self.step):
            if self._gradients_are_finite():
                self._update_topology()
            else:
                self.skipped_updates += 1
            self._accumulated.clear()
            for layer in self.sparse_layers:
                del layer.dense_gradient

    def _optimizer_moves_inactive_weights(self) -> bool:
        kept_moments = self.settings.grown_state == "keep"
        return kept_moments or super()._optimizer_moves_inactive_weights()

    def _gradients_are_finite(self) -> bool:
        """Whether all gradients are finite, those of inactive connections too, which the optimizer
        never sees."""
        groups = self._optimizer.param_groups
        gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
        norms = torch._foreach_norm(gradients) if gradients else ()
        sums = [total for _, total in self._accumulated.values()]
        return all(bool(total.isfinite()) for total in (*sums, *norms))

    def _update_topology(self) -> None:
        rate = self.prune_rate_at(self.step)
        if not 0 <= rate <= 1:
            raise SparsityError(
                f"{type(self).__name__}.prune_rate_at({self.step}) is {rate}; a prune rate is a "
                "fraction, from 0 to 1"
            )
        self.connections_changed = sum(
            self._drop_and_grow(each, rate) for each in self.sparse_layers
        )
        self.topology_updates += 1
        self.updated_at = self.step
        if self.on_topology_update:
            self.on_topology_update(self.step, self.connections_changed)

    def _drop_and_grow(self, layer: Layer, prune_rate: float) -> int:
        """Replace connections of one layer by others, and return their number."""
        count = round(prune_rate * layer.active)
        frozen = not layer.weight.requires_grad
        untrained = self.needs_dense_gradient and not layer.has_dense_gradient
        if count == 0 or frozen or untrained:
            return 0
        kept = largest(self.survival_scores(layer), layer.mask, layer.active - count)
        mask = self.select_mask(layer, kept, self.growth_scores(layer, self._rng))
        new = mask.logical_and(~layer.mask)
        changed = int(new.count_nonzero())
        layer.mask.copy_(mask)
        apply_mask_(layer.weight, layer.mask)
        for tensor in self._companions(layer):
            apply_mask_(tensor, layer.mask)
        if self.settings.grown_state == "mean":
            kept_count = layer.active - changed
            start_second_moments_at_mean(self._optimizer, layer.weight, new, kept_count)
        return changed

    def _companions(self, layer: Layer) -> Iterable[Tensor]:
        if self.settings.grown_state == "keep":
            averaged = self._averaged
            return () if averaged is None else (averaged.get_parameter(layer.name),)
        return super()._companions(layer)
