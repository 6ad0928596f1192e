import copy

import dstbench_top_kast
import pytest
import torch
from dstbench_top_kast import TopKAST
from torch import nn

WEIGHT = torch.tensor([[8.0, 7, -6, 5], [4, 3, 2, 1]])

GRADIENT = torch.tensor([[2.0, -2, 2, -2], [-2, -2, -2, -2]])
"""Its root mean square is 2."""


def attached(**settings: float) -> tuple[nn.Linear, torch.optim.Optimizer, TopKAST]:
    """Two of eight weights are active, two in reserve; half a unit is a step of the reserve."""
    model = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(WEIGHT)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, **settings)
    sparsifier = TopKAST(0.75, total_steps=100, exploration_frequency=2, reserve=0.25)
    return model, optimizer, sparsifier.attach(model, optimizer)


def train(model: nn.Linear, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        (model.weight * GRADIENT).sum().backward()
        optimizer.step()


def test_two_steps_and_an_update_by_hand() -> None:
    model, optimizer, sparsifier = attached()
    (layer,) = sparsifier.layers
    assert model.weight.tolist() == [[8, 7, 0, 0], [0, 0, 0, 0]], "the largest, at first"
    train(model, optimizer, 1)
    assert model.weight.tolist() == [[7, 8, 0, 0], [0, 0, 0, 0]]
    assert sparsifier.values["weight"].tolist() == [[8, 7, -6.5, 5.5], [4, 3, 2, 1]]
    train(model, optimizer, 1)
    # 6 and 9 are active, −7 and 6 in reserve: −7 becomes active in the place of 6, as it is
    assert layer.mask.int().tolist() == [[0, 1, 1, 0], [0, 0, 0, 0]]
    assert model.weight.tolist() == [[0, 9, -7, 0], [0, 0, 0, 0]]
    assert sparsifier.values["weight"].tolist() == [[6, 9, -7, 6], [4, 3, 2, 1]]
    assert sparsifier.connections_changed == 1
    train(model, optimizer, 1)
    # both 6 are in reserve now, of which one has the gradient 2, the other −2
    assert sparsifier.values["weight"].tolist() == [[5.5, 9, -7, 6.5], [4, 3, 2, 1]]


def test_the_reserve_decays_one_over_the_density_times_as_fast() -> None:
    model, optimizer, sparsifier = attached(weight_decay=0.1)
    (model.weight * 0).sum().backward()
    optimizer.step()
    # by 0.5 · 0.1 = 5 %; and by 20 %, as the density is a quarter
    assert model.weight[0, :2].tolist() == pytest.approx([7.6, 6.65])
    values = sparsifier.values["weight"]
    assert values[0, 2:].tolist() == pytest.approx([-4.8, 4.0])
    assert values[1].tolist() == [4, 3, 2, 1]


def test_every_step_computes_the_dense_gradient_until_exploration_stops() -> None:
    assert TopKAST(0.9, total_steps=100).dense_gradient_steps(100) == 99
    assert TopKAST(0.9, total_steps=100, stop_fraction=0.5).dense_gradient_steps(100) == 49


def test_a_state_may_be_taken_up_by_the_sparsifier_that_saved_it() -> None:
    model, optimizer, sparsifier = attached()
    train(model, optimizer, 3)
    before = copy.deepcopy(sparsifier.values["weight"])
    sparsifier.load_state_dict(sparsifier.state_dict())
    assert torch.equal(sparsifier.values["weight"], before)
    assert sparsifier.reserves["weight"].int().tolist() == [[1, 0, 0, 1], [0, 0, 0, 0]]


def test_it_registers_itself() -> None:
    assert dstbench_top_kast.dstbench_sparsifiers() == [TopKAST]
    assert TopKAST.name == "top-kast"
