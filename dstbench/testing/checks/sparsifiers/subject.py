"""A sparsifier, and the trainings it is checked with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from unittest import SkipTest

from dstbench.errors import SparsityError
from dstbench.sparsity import DynamicSparsifier, Sparsifier
from dstbench.testing.checking import Broken, Subject, merged, seeded
from dstbench.testing.trials.networks import NETWORKS
from dstbench.testing.trials.trajectory import Trajectory, record
from dstbench.testing.trials.trial import Trial

T = TypeVar("T")

SPARSITIES = (0.5, 0.75, 0.9)

STEPS = 10
"""Optimizer steps of most trials: three topology updates, and a step after the last."""

EVERY = 3
"""Steps between the topology updates of a trial, where the class's trial settings say nothing."""


@dataclass
class SparsifierSubject(Subject):
    """A sparsifier, its trials, and their trajectories, each recorded once for all checks."""

    cls: type[Sparsifier]
    _trajectories: dict[tuple[Any, ...], Trajectory] = field(default_factory=dict, repr=False)

    @property
    def values(self) -> dict[str, Any]:
        often = {"exploration_frequency": EVERY}
        return merged(often if issubclass(self.cls, DynamicSparsifier) else {}, super().values)

    def trial(self, network: str, sparsity: float, **conditions: Any) -> Trial:
        return Trial(self.cls, network, sparsity, settings=self.values, **conditions)

    def trajectory(self, network: str, sparsity: float, **conditions: Any) -> Trajectory:
        """The trajectory of a trial of at most :data:`STEPS` steps.

        It does not depend on the state of the global generators, and so not on which check is the
        first to look.
        """
        key = (network, sparsity, *sorted(conditions.items()))
        if key not in self._trajectories:
            with seeded(0):
                trial = self.trial(network, sparsity, **conditions)
                steps = min(STEPS, trial.arguments["total_steps"])
                self._trajectories[key] = record(trial, steps)
                trial.end()
        return self._trajectories[key]

    def trials(
        self,
        networks: Sequence[str] = tuple(NETWORKS),
        sparsities: Sequence[float] = SPARSITIES,
        **conditions: Any,
    ) -> Iterator[Trial]:
        """Trials of each network at each sparsity, but for those that the class refuses with a
        :class:`~dstbench.errors.SparsityError`; skips the check where it refuses all. A trial is
        ended when the next is asked for."""
        for trial in _not_refused(self.trial, networks, sparsities, **conditions):
            yield trial
            trial.end()

    def again(self, seed: int = 0, **conditions: Any) -> Iterator[tuple[Trajectory, Trial]]:
        """Each trajectory that :meth:`trajectories` has, and a trial of the same training, or of
        one under other conditions, after as many steps.

        While it is made and trained, the global generators are seeded with ``seed``; they are with
        0 where the trajectory is recorded. It is ended when the next is asked for.
        """
        for trajectory in self.trajectories():
            steps = len(list(trajectory)) - 1
            with seeded(seed):
                trial = self.trial(trajectory.network, trajectory.sparsity, **conditions)
                trial.train(steps)
            yield trajectory, trial
            trial.end()

    def trajectories(
        self,
        networks: Sequence[str] = tuple(NETWORKS),
        sparsities: Sequence[float] = SPARSITIES,
        **conditions: Any,
    ) -> Iterator[Trajectory]:
        """Trajectories of the same trials as :meth:`trials`."""
        return _not_refused(self.trajectory, networks, sparsities, **conditions)


def attached(trial: Trial) -> Sparsifier:
    """The sparsifier of a trial that has one."""
    assert trial.sparsifier is not None
    return trial.sparsifier


def broken(trial: Trial, happened: str) -> Broken:
    """A broken promise of a trial, with code that brings a trial to the same step."""
    return Broken(f"{trial}: {happened}", trial.code())


def _not_refused(
    make: Callable[..., T], networks: Sequence[str], sparsities: Sequence[float], **conditions: Any
) -> Iterator[T]:
    refusals = []
    for network in networks:
        for sparsity in sparsities:
            try:
                made = make(network, sparsity, **conditions)
            except SparsityError as error:
                refusals.append(error)
            else:
                yield made
    if len(refusals) == len(networks) * len(sparsities):
        raise SkipTest(f"refused: {refusals[-1]}")
