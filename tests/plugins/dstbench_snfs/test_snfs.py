import dstbench_snfs
import pytest
import torch
from dstbench_snfs import SNFS, share_out
from torch import nn


def test_two_steps_and_an_update_by_hand() -> None:
    model = nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 4, bias=False))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    sparsifier = SNFS(
        0.5,
        total_steps=10,
        distribution="uniform",
        exploration_frequency=2,
        prune_rate=0.5,
        prune_schedule="constant",
        momentum=0.5,
    ).attach(model, optimizer)
    first, second = sparsifier.layers
    with torch.no_grad():
        for layer in (first, second):
            layer.mask.copy_(torch.tensor([1, 1, 1, 1, 0, 0, 0, 0]).view(layer.mask.shape))
        first.weight.copy_(torch.tensor([[4.0, 3, 2, 1], [0, 0, 0, 0]]))
        second.weight.copy_(torch.tensor([[4.0, 3], [2, 1], [0, 0], [0, 0]]))
    gradients = (
        ([[6.0, 6, 6, 6], [0, 8, 4, 0]], [[2.0, 2], [2, 2], [8, 0], [0, 0]]),
        ([[3.0, 3, 3, 3], [0, 0, 6, 0]], [[1.0, 1], [1, 1], [0, 0], [0, 9]]),
    )
    for of_first, of_second in (map(torch.tensor, each) for each in gradients):
        ((first.weight * of_first).sum() + (second.weight * of_second).sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
    # halved, and half the second gradient added: means of active ones 3 and 1, so that the four
    # connections that both give up are shared out as 3 and 1
    assert sparsifier.momenta["0.weight"].tolist() == [[3, 3, 3, 3], [0, 2, 4, 0]]
    assert sparsifier.momenta["1.weight"].tolist() == [[1, 1], [1, 1], [2, 0], [0, 4.5]]
    assert sparsifier.count_history[1:] == [(2, {"0.weight": 5, "1.weight": 3})]
    # the first keeps 4, 3 and regrows 2, 1 (momentum 3, as theirs) and one of 4
    assert first.mask.int().tolist() == [[1, 1, 1, 1], [0, 0, 1, 0]]
    # the second keeps 4, 3 as well, and has one to grow: 4.5
    assert second.mask.int().tolist() == [[1, 1], [0, 0], [0, 0], [0, 1]]
    assert sparsifier.dense_gradient_steps(10) == 7, "every step until exploration stops"


def test_a_rarer_momentum_costs_fewer_dense_gradients() -> None:
    sparsifier = SNFS(0.5, total_steps=100, exploration_frequency=20, momentum_frequency=10)
    assert [step for step in range(1, 101) if sparsifier.observes_at(step)] == list(
        range(10, 75, 10)
    )
    assert sparsifier.dense_gradient_steps(100) == 7


@pytest.mark.parametrize(
    ("total", "weights", "room", "shares"),
    [
        (6, [2, 1], [9, 9], [4, 2]),
        (6, [2, 1], [3, 9], [3, 3]),  # what is too much for the first is the second's
        (2, [1, 1, 1], [9, 9, 9], [1, 1, 0]),
        (5, [1, 0], [3, 9], [3, 2]),  # weight 0 comes last
        (0, [1, 2], [0, 0], [0, 0]),
        (7, [1, 1, 5], [2, 2, 3], [2, 2, 3]),
    ],
)
def test_sharing_out_is_exact(
    total: int, weights: list[float], room: list[int], shares: list[int]
) -> None:
    shared = share_out(total, dict(enumerate(weights)), dict(enumerate(room)))
    assert list(shared.values()) == shares


def test_it_registers_itself() -> None:
    assert dstbench_snfs.dstbench_sparsifiers() == [SNFS]
    assert SNFS.name == "snfs"
