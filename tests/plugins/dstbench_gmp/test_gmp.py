import dstbench_gmp
import pytest
import torch
from dstbench_gmp import GMP
from torch import nn

from dstbench.errors import SparsityError


def test_the_schedule_by_hand() -> None:
    """s_t = 0.8 − 0.8 (1 − (t − 2) / 8)³, at steps 4, 6, 8, 10."""
    gmp = GMP(0.8, total_steps=20, exploration_frequency=2, begin_fraction=0.1, stop_fraction=0.55)
    assert [step for step in range(1, 21) if gmp.updates_at(step)] == [4, 6, 8, 10]
    sparsities = [1 - gmp.density_at(step) for step in (0, 2, 4, 6, 8, 10, 20)]
    expected = [0.8 * (1 - left**3) for left in (1, 1, 0.75, 0.5, 0.25, 0, 0)]
    assert sparsities == pytest.approx(expected)
    assert gmp.final_density == 1 - 0.8


def test_two_prunings_by_hand() -> None:
    model = nn.Linear(4, 2, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    sparsifier = GMP(0.75, total_steps=4, exploration_frequency=1).attach(model, optimizer)
    (layer,) = sparsifier.layers
    assert layer.mask.all()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[8.0, -1, 3, -6], [2, -7, 5, 4]]))
    masks = []
    for _ in range(4):
        model(torch.ones(4)).sum().backward()
        optimizer.step()
        masks.append(layer.mask.int().tolist())
    # S is reached at step 2; at step 1, s = 0.75 (1 − (1/2)³) = 0.656, which leaves 2.75 of eight
    assert masks[0] == [[1, 0, 0, 1], [0, 1, 0, 0]]
    assert masks[1:] == 3 * [[[1, 0, 0, 0], [0, 1, 0, 0]]]
    assert model.weight.tolist() == [[8, 0, 0, 0], [0, -7, 0, 0]]
    assert sparsifier.count_history == [(0, {"weight": 8}), (1, {"weight": 3}), (2, {"weight": 2})]


def test_a_sparse_start() -> None:
    model = nn.Linear(10, 10, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    settings = {"exploration_frequency": 5, "initial_sparsity": 0.5}
    sparsifier = GMP(0.9, total_steps=20, **settings).attach(model, optimizer)
    assert sparsifier.active == 50
    assert GMP(0.3, total_steps=20, **settings).density_at(0) == 1 - 0.3, "never sparser than S"


def test_a_training_too_short_to_prune_in() -> None:
    with pytest.raises(SparsityError, match="none of 100 steps is one to prune at"):
        GMP(0.5, total_steps=100)
    GMP(0.5, total_steps=100, initial_sparsity=0.5)
    GMP(0.0, total_steps=100)


def test_it_registers_itself() -> None:
    assert dstbench_gmp.dstbench_sparsifiers() == [GMP]
    assert GMP.name == "gmp"
