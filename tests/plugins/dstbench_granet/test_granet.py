import dstbench_granet
import pytest
import torch
from dstbench_granet import GraNet
from torch import nn

from dstbench.errors import SparsityError


def test_pruning_ends_before_exploration() -> None:
    granet = GraNet(0.9, total_steps=20, exploration_frequency=2)
    assert [step for step in range(1, 21) if granet.updates_at(step)] == [2, 4, 6, 8, 10, 12, 14]
    sparsities = [round(1 - granet.density_at(step), 4) for step in (0, 2, 8, 10, 14)]
    # 0.9 − 0.4 (1 − t/10)³
    assert sparsities == [0.5, 0.6952, 0.8968, 0.9, 0.9]
    assert granet.density_at(10) == 1 - 0.9
    assert granet.dense_gradient_steps(20) == 7


def test_an_update_by_hand() -> None:
    """Of ten weights six stay after S = 0.4, of which half, the smallest, are replaced."""
    model = nn.Linear(5, 2, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    sparsifier = GraNet(
        0.4,
        total_steps=2,
        exploration_frequency=1,
        initial_sparsity=0.0,
        prune_schedule="constant",
    ).attach(model, optimizer)
    (layer,) = sparsifier.layers
    assert layer.active == 10
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[10.0, 9, 8, 7, 6], [5, 4, 3, 2, 1]]))
    gradient = torch.tensor([[0.0, 0, 0, 0, 1], [2, 5, 3, -6, 4]])
    (model.weight * gradient).sum().backward()
    optimizer.step()
    # 4, 3, 2, 1 are pruned and 7, 6, 5 dropped; |gradient| is largest at −6, 5 and 4 of these
    assert layer.mask.int().tolist() == [[1, 1, 1, 0, 0], [0, 1, 0, 1, 1]]
    assert model.weight.tolist() == [[10, 9, 8, 0, 0], [0, 4, 0, 2, 1]]
    assert sparsifier.count_history == [(0, {"weight": 10}), (1, {"weight": 6})]


def test_a_training_too_short_to_prune_in() -> None:
    with pytest.raises(SparsityError, match="none of the first 99 of 199 steps is one to prune at"):
        GraNet(0.9, total_steps=199)
    GraNet(0.5, total_steps=199)


def test_it_registers_itself() -> None:
    assert dstbench_granet.dstbench_sparsifiers() == [GraNet]
    assert GraNet.name == "granet"
