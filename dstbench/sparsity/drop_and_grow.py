"""Drop-and-grow: what all dynamic methods share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from dstbench.errors import SparsityError
from dstbench.sparsity.choosing import choose_mask, groups_of
from dstbench.sparsity.gradients import GradientRecorder, are_finite
from dstbench.sparsity.idle import EmptyUpdates, MissedSteps
from dstbench.sparsity.layers import Layer
from dstbench.sparsity.optimizers import (
    HeldBack,
    refuse_coded_state,
    refuse_partial_step,
    start_second_moments_at_mean,
)
from dstbench.sparsity.scheduled import ScheduledSparsifier
from dstbench.sparsity.selection import count_true, largest
from dstbench.sparsity.settings import DynamicSparsifierSettings
from dstbench.sparsity.sparsifier import Sparsifier
from dstbench.sparsity.structure import whole_counts


class DynamicSparsifier(ScheduledSparsifier, ABC):
    """Drop-and-grow: every so many steps, a fraction of each layer's active weights is replaced.

    A method is a subclass that says where to grow (:meth:`growth_scores`), and whether it needs
    the gradient of inactive connections for that (:attr:`needs_dense_gradient`). A topology update
    follows the optimizer's step, in every layer: the active weights of smallest magnitude are
    dropped, and as many connections grown among all that are not kept (Evci et al. 2020,
    Algorithm 1). One that is dropped and grown again in the same update keeps its value and
    optimizer state; any other grown connection starts at zero, unless :meth:`grown_values` says
    with what.

    A method may also change how many connections there are: all of them together
    (:meth:`density_at`), or those of each layer (:meth:`counts_after_update`).
    """

    needs_dense_gradient: ClassVar[bool] = False
    """Whether :meth:`growth_scores` and :meth:`observe` find the gradient of all connections in
    ``layer.dense_gradient``; the steps that compute it cost more."""

    class Settings(DynamicSparsifierSettings, Sparsifier.Settings):
        pass

    def __init__(self, sparsity: float, *, total_steps: int, seed: int = 0, **settings: Any):
        super().__init__(sparsity, total_steps=total_steps, seed=seed, **settings)
        self.connections_changed = 0
        """Number of connections that the latest topology update replaced by others, or added."""
        self._recorder = GradientRecorder()
        self._held_back: HeldBack | None = None
        self._checked: torch.optim.Optimizer | None = None
        self._missed_steps = MissedSteps()
        self._empty_updates = EmptyUpdates()

    __init__.__doc__ = Sparsifier.__init__.__doc__

    @abstractmethod
    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        """Scores in the shape of ``layer.weight``; connections with the highest are grown.

        Scores of active connections that are kept are ignored. A layer in which an update grows
        nothing is not asked for (see :meth:`observe`). All randomness comes from ``rng``, which is
        on the weight's device.
        """

    def survival_scores(self, layer: Layer) -> Tensor:
        """Scores in the shape of ``layer.weight``; active weights with the lowest are dropped."""
        return layer.weight.abs()

    def choose_kept(self, layer: Layer, scores: Tensor, count: int, prune_rate: float) -> Tensor:
        """The connections that an update keeps in a layer of which it will leave ``count``, as a
        boolean mask: by default, of those that can stay all but the part ``prune_rate``, those of
        highest ``scores``, which are :meth:`survival_scores`.

        They are ``count`` connections at most, all of them active. Where groups of output channels
        share one mask, a connection is such a group, as in :meth:`select_mask`.
        """
        staying = min(layer.active, count)
        return largest(scores, layer.mask, staying - round(prune_rate * staying))

    def grown_values(self, layer: Layer) -> Tensor | None:
        """Values, in the shape of ``layer.weight``, with which connections begin that an update has
        just grown; ``None``: zero. Asked for after :meth:`growth_scores`, while ``layer.mask`` is
        still the one before the update.
        """
        return None

    def observes_at(self, step: int) -> bool:
        """Whether :meth:`observe` is called after optimizer step ``step`` (the first is 1)."""
        return False

    def observe(self, layer: Layer, step: int) -> None:
        """See a layer after a step for which :meth:`observes_at` asks, before its update if there
        is one: for methods with a memory, of gradients for example.

        With :attr:`needs_dense_gradient`, ``layer.dense_gradient`` is there.
        """

    def optimizer_settings(self, layer: Layer) -> Mapping[str, Any]:
        """Settings with which the optimizer took its latest step with a layer's weight, by their
        names in torch: ``lr``, ``weight_decay``, …"""
        groups = self._keeper.optimizer.param_groups
        return next(
            group for group in groups if any(layer.parameter is each for each in group["params"])
        )

    def dense_gradient_steps(self, steps: int) -> int:
        if not (self.needs_dense_gradient and self.sparsity):
            return 0
        return sum(map(self._looks_at, range(1, steps + 1)))

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {
            "updates": self.topology_updates,
            "skipped": self.skipped_updates,
            "updated_at": self.updated_at,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.topology_updates = state["updates"]
        self.skipped_updates = state["skipped"]
        self.updated_at = state["updated_at"]

    def _looks_at(self, step: int) -> bool:
        """Whether something is done after that step for which gradients are looked at."""
        return self.updates_at(step) or self.observes_at(step)

    def _keeps_inactive_state(self) -> bool:
        kept: bool = self.settings.grown_state == "keep"
        return kept

    @property
    def update_bytes(self) -> int:
        held = 0
        for layer in self.sparse_layers:
            size = layer.mask.numel() * layer.weight.element_size()
            held += size * (2 * (layer.values is not None) + self.needs_dense_gradient)
        return held

    @property
    def moves(self) -> bool:
        return self.sparsity > 0

    def _needs_whole_weights_now(self) -> bool:
        return self.moves and self.observes_at(self.step + 1)

    def _needs_dense_gradient_now(self) -> bool:
        return self.needs_dense_gradient and self.moves and self._looks_at(self.step + 1)

    def _gradient_accumulated(self, layer: Layer, gradient: Tensor) -> None:
        if not self.moves:
            return
        if layer is self.layers[0]:
            self._missed_steps.look(layer, self._keeper.writes)
        may_change = layer.density < 1 or self._changes_counts
        if may_change and self._looks_at(self.step + 1):
            added = None
            if layer.values is not None:
                added = self.kernels.layers[layer.name].take_dense_gradient()
            self._recorder.record(layer, gradient, dense=self.needs_dense_gradient, added=added)

    def _step_begins(self, optimizer: torch.optim.Optimizer) -> None:
        if self.moves and self.settings.update_replaces_step and self.updates_at(self.step + 1):
            self._held_back = HeldBack(optimizer)

    @torch.no_grad()
    def _step_taken(self, trained: Sequence[Layer]) -> None:
        super()._step_taken(trained)
        self._missed_steps.clear()
        if self._held_back:
            self._held_back.give_back()
            self._held_back = None
        if not self.moves:
            return
        refuse_partial_step(trained, self.layers)
        optimizer, update = self._keeper.optimizer, self.updates_at(self.step)
        if self.settings.grown_state != "keep" and (update or optimizer is not self._checked):
            refuse_coded_state(optimizer, self.layers)
            self._checked = optimizer  # and at updates: it may keep state of another layer by then
        if self._looks_at(self.step):
            self._look()
            self._recorder.clear(self.layers)
            for connections in self.kernels.layers.values():
                connections.take_dense_gradient()  # of passes of which no gradient was accumulated

    def _look(self) -> None:
        """Observe, and update the topology, if all gradients are finite."""
        replicas, device = self._replicas, self.layers[0].weight.device
        if not replicas.all(self._gradients_are_finite(), device):
            self.skipped_updates += self.updates_at(self.step)
            return
        if self.needs_dense_gradient:
            replicas.average_dense_gradients(self.layers)
        ready = [layer for layer in self.layers if self._is_ready(layer)]
        if self.observes_at(self.step):
            for layer in ready:
                self.observe(layer, self.step)
        if self.updates_at(self.step):
            with self._packing.shown():
                self._update_topology(ready)

    def _gradients_are_finite(self) -> bool:
        """Whether all gradients are finite, those of inactive connections too, which the optimizer
        never sees."""
        return are_finite(self._keeper.optimizer) and self._recorder.all_finite

    def _is_ready(self, layer: Layer) -> bool:
        """Whether the layer has what an update needs."""
        if layer.density == 1 and not self._changes_counts:
            return False
        trained = layer.parameter.requires_grad
        return trained and (layer.has_dense_gradient or not self.needs_dense_gradient)

    def _update_topology(self, ready: Sequence[Layer]) -> None:
        if not ready and self.sparse_layers:
            self._empty_updates.tell(self.step)
            return
        self._empty_updates.clear()
        rate = self.prune_rate_at(self.step)
        if not 0 <= rate <= 1:
            raise SparsityError(
                f"{type(self).__name__}.prune_rate_at({self.step}) is {rate}; a prune rate is a "
                "fraction, from 0 to 1"
            )
        self.verify()
        counts = whole_counts(self.structure, self.counts_after_update(self.step), self.shapes)
        before = {layer.name: layer.active for layer in self.layers}
        self.changes = {
            layer.name: self._drop_and_grow(layer, rate, counts[layer.name]) for layer in ready
        }
        self.connections_changed = sum(self.changes.values())
        if any(layer.active != before[layer.name] for layer in self.layers):
            self.count_history.append((self.step, {each.name: each.active for each in self.layers}))
        self.topology_updates += 1
        self.updated_at = self.step
        if self.on_topology_update:
            self.on_topology_update(self.step, self.connections_changed)

    def _drop_and_grow(self, layer: Layer, prune_rate: float, count: int) -> int:
        """Give a layer ``count`` connections, some of them others than before; the number of those
        that it did not have."""
        structure = layer.structure
        staying = min(layer.active, count) // layer.group
        if round(prune_rate * staying) == 0 and count == layer.active:
            return 0
        scores = structure.sums(self.survival_scores(layer))
        kept = self.choose_kept(groups_of(layer), scores, count // layer.group, prune_rate)
        layer.allot(count)
        if count > count_true(kept) * layer.group:
            scores = self.growth_scores(layer, self._rng)
            mask = choose_mask(layer, kept, scores, self.select_mask)
        else:
            mask = structure.of_connections(kept)
        new = mask.logical_and(~layer.mask)
        changed = count_true(new)
        values = self.grown_values(layer) if changed else None
        optimizer = self._keeper.optimizer
        with self._packing.remasked(layer, optimizer):
            layer.replace_mask(mask)
            if values is not None:
                layer.weight.copy_(torch.where(new, values, layer.weight))
        self._keeper.mask_anew(layer)
        if self.settings.grown_state == "mean":
            grown = self._packing.in_place(layer, new)
            start_second_moments_at_mean(optimizer, layer.parameter, grown, layer.active - changed)
        return changed
