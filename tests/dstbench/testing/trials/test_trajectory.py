"""Recorded trainings."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from dstbench.sparsity import DynamicSparsifier, Layer, Sparsifier, random_scores
from dstbench.testing.trials import Trial
from dstbench.testing.trials.trajectory import Leak, record

NETWORK = "convolutions"


class Growing(DynamicSparsifier):
    name = "growing"

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return random_scores(layer, rng)


class Leaking(Sparsifier):
    """Writes one half into an inactive weight of the first layer after its second step."""

    name = "leaking"

    @torch.no_grad()
    def _step_taken(self, trained: Sequence[Layer]) -> None:
        super()._step_taken(trained)
        if self.step == 2:
            layer = self.layers[0]
            layer.weight[tuple((~layer.mask).nonzero()[0])] = -0.5


def test_a_trajectory_has_a_snapshot_before_the_first_and_after_each_step() -> None:
    trial = Trial(Growing, NETWORK, 0.5, settings={"exploration_frequency": 3})
    trajectory = record(trial, 7)
    assert (trajectory.network, trajectory.sparsity) == (NETWORK, 0.5)
    assert [snapshot.step for snapshot in trajectory] == list(range(8))
    assert trajectory.moves() == [3, 6]
    assert trial.sparsifier is not None
    for snapshot in trajectory:
        assert snapshot.active == {layer.name: layer.active for layer in trial.sparsifier.layers}
        assert not snapshot.weights + snapshot.averaged + snapshot.moments + snapshot.gradients
        assert not snapshot.not_finite


def test_what_is_recorded_does_not_change_the_training() -> None:
    recorded, trained = (Trial(Growing, NETWORK, 0.5) for _ in range(2))
    record(recorded, 4)
    trained.train(4)
    for name, tensor in trained.state().items():
        assert torch.equal(recorded.state()[name], tensor)


def test_leaks_are_recorded_where_they_are_with_their_number_and_size() -> None:
    trial = Trial(Leaking, NETWORK, 0.5)
    assert trial.sparsifier is not None
    layer = trial.sparsifier.layers[0]
    inactive = layer.mask.numel() - layer.active
    leaks = [snapshot.weights for snapshot in record(trial, 2)]
    leak = Leak("the weight 0.weight", 1, inactive, 0.5)
    assert leaks == [[], [], [leak]]
    assert str(leak) == (
        f"the weight 0.weight is not zero at 1 of {inactive} inactive connections (up to 0.5)"
    )


def test_what_a_training_raises_is_raised_to_each_that_looks() -> None:
    def fails(trial: Trial, name: str, gradient: Tensor) -> Tensor:
        if trial.step == 2:
            raise RuntimeError("no gradient")
        return gradient

    trajectory = record(Trial(Growing, NETWORK, 0.5, disturb=fails), 5)
    for _ in range(2):
        seen = iter(trajectory)
        assert [next(seen).step for _ in range(3)] == [0, 1, 2]
        with pytest.raises(RuntimeError, match="no gradient"):
            next(seen)
