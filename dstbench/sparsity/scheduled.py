"""When topology updates come, and how many connections each of them leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dstbench.errors import SparsityError
from dstbench.sparsity import schedules
from dstbench.sparsity.distribution import active_counts
from dstbench.sparsity.sparsifier import Sparsifier
from dstbench.sparsity.structure import whole_counts


class ScheduledSparsifier(Sparsifier):
    """Changes its connections after some steps, by the settings of a dynamic sparsifier."""

    def __init__(self, sparsity: float, *, total_steps: int, seed: int = 0, **settings: Any):
        super().__init__(sparsity, total_steps=total_steps, seed=seed, **settings)
        self.updated_at = 0
        """Optimizer step that the latest topology update followed; 0: none yet."""

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

    def density_at(self, step: int) -> float:
        """The density of the sparsifiable weights after the update at ``step``; 0: of the first
        mask.

        A method that changes it says how here, for every step at which it has an update; the
        density is 1 − S (:attr:`sparsity`) at the end, or the leaderboard says what it is.
        """
        return 1 - self.sparsity

    def counts_after_update(self, step: int) -> Mapping[str, int]:
        """Number of connections that each layer has after the update at ``step``, by name.

        They follow from :meth:`density_at` and the layer distribution, and stay as they are where
        the density does. A method that moves connections from one layer to another says how many
        each has here; :attr:`layers` are as they were before the update.
        """
        if self.density_at(step) == self.density_at(self.updated_at):
            return {layer.name: layer.active for layer in self.layers}
        return self._counts_at(self.shapes, step)

    def count_phases(
        self, shapes: Mapping[str, Sequence[int]]
    ) -> Iterator[tuple[int, dict[str, int]]]:
        density = self.density_at(0)
        yield 0, self._counts_at(shapes, 0)
        for step in filter(self.updates_at, range(1, self.total_steps + 1)):
            if self.density_at(step) != density:
                density = self.density_at(step)
                yield step, self._counts_at(shapes, step)

    @property
    def final_density(self) -> float:
        if self.layers:  # an update may have been skipped
            return self.density_at(self.updated_at)
        updates = filter(self.updates_at, range(self.total_steps, 0, -1))
        return self.density_at(next(updates, 0))

    def _counts_at(self, shapes: Mapping[str, Sequence[int]], step: int) -> dict[str, int]:
        density = self.density_at(step)
        if not 0 < density <= 1:
            raise SparsityError(
                f"{type(self).__name__}.density_at({step}) is {density}; a density is above 0, and "
                "at most 1"
            )
        if density == 1 - self.sparsity:
            counts = self.layer_counts(shapes)
        else:
            counts = active_counts(shapes, 1 - density, self.settings.distribution)
        return whole_counts(self.structure, counts, shapes)

    def _total_at(self, state: Mapping[str, Any]) -> int:
        density = self.density_at(state["updated_at"])
        if density == self.density_at(self.updated_at):
            return self.active
        return sum(self._counts_at(self.shapes, state["updated_at"]).values())

    @property
    def _changes_counts(self) -> bool:
        """Whether the method changes how many connections layers have."""
        cls = type(self)
        return (
            cls.density_at is not ScheduledSparsifier.density_at
            or cls.counts_after_update is not ScheduledSparsifier.counts_after_update
        )
