"""Counts that follow from what a sparsifier declares, by hand."""

import pytest
import torch
from torch import nn

from dstbench.counting.counts import Network, count, measure
from dstbench.errors import SparsityError
from dstbench.settings import TrainingSettings
from dstbench.sparsity import Sparsifier

TRAINING = TrainingSettings(steps=10, batch_size=4)


class ByGradient(Sparsifier):
    needs_initial_gradient = True


class ByThreeGradients(ByGradient):
    initial_passes = 3


class WatchesGradients(Sparsifier):
    """Not a drop-and-grow method, but it looks at the dense gradient at every second step."""

    def dense_gradient_steps(self, steps: int) -> int:
        return steps // 2


class CountsFollowFromData(ByGradient):
    def layer_counts(self, shapes: object) -> dict[str, int]:
        raise SparsityError("known once it is attached")


@pytest.fixture
def network() -> Network:
    """20 inputs, 10 outputs: 200 FLOPs for one example, 20 of them at S = 0.9."""
    layer = nn.Linear(20, 10, bias=False)
    return measure(layer, {"weight": layer.weight}, (torch.zeros(1, 20),), calls_per_sample=3)


@pytest.mark.parametrize(
    ("kind", "sparsity", "per_example"),
    [
        (Sparsifier, 0.9, 10 * 3 * 20),
        (ByGradient, 0.9, 3 * 200 + 10 * 3 * 20),  # one dense forward and backward pass before
        (ByGradient, 0.0, 10 * 3 * 200),
        (ByThreeGradients, 0.9, 3 * 3 * 200 + 10 * 3 * 20),
        (ByThreeGradients, 0.0, 10 * 3 * 200),
        (WatchesGradients, 0.9, 5 * 3 * 20 + 5 * (2 * 20 + 200)),
    ],
)
def test_training_flops_by_hand(
    network: Network, kind: type[Sparsifier], sparsity: float, per_example: int
) -> None:
    counts = count(network, kind(sparsity, total_steps=10), TRAINING)
    assert counts.training_flops == pytest.approx(4 * per_example, rel=1e-12)
    assert counts.dense_training_flops == 4 * 10 * 3 * 200


def test_counts_that_follow_from_data_are_known_once_it_is_attached(network: Network) -> None:
    with pytest.raises(SparsityError, match="known once it is attached"):
        count(network, CountsFollowFromData(0.9, total_steps=10), TRAINING)
