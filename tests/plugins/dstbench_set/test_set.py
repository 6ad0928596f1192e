import dstbench_set
import pytest
import torch
from dstbench_set import SET
from torch import nn


def test_an_update_by_hand() -> None:
    model = nn.Linear(7, 2, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    sparsifier = SET(0.5, total_steps=100, exploration_frequency=1, prune_rate=0.5)
    (layer,) = sparsifier.attach(model, optimizer).layers
    weight = torch.tensor([[4.0, 1, 2, 3, -1, -5, -6], [0.0] * 7])
    growths = []
    for _ in range(20):
        with torch.no_grad():
            layer.mask.copy_(weight != 0)
            model.weight.copy_(weight)
        optimizer.step()
        # of four positive weights 1 and 2 go; of three negative ones round(1.5): -1 and -5, though
        # 3 and 4 are nearer to zero
        assert layer.mask[0, [0, 3, 6]].all()
        assert layer.active == int(layer.mask.count_nonzero()) == 7
        growths.append(layer.mask.clone())
    assert torch.stack(growths).float().std(dim=0).count_nonzero() == 11, "any other may grow"


def test_the_prune_rate_stays_until_the_end() -> None:
    sparsifier = SET(0.5, total_steps=400)
    assert [step for step in range(1, 401) if sparsifier.updates_at(step)] == [100, 200, 300]
    assert {sparsifier.prune_rate_at(step) for step in (100, 200, 300)} == {0.3}
    assert sparsifier.dense_gradient_steps(400) == 0


def test_signs_do_not_matter_where_all_are_alike() -> None:
    """One sign only: what MagRan drops, too."""
    model = nn.Linear(4, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    sparsifier = SET(0.25, total_steps=9, exploration_frequency=1, prune_rate=0.4)
    (layer,) = sparsifier.attach(model, optimizer).layers
    with torch.no_grad():
        layer.mask.copy_(torch.tensor([[1, 1, 1, 0]]))
        model.weight.copy_(torch.tensor([[-3.0, -1, -2, 0]]))
    optimizer.step()
    assert model.weight[0, [0, 2]].tolist() == pytest.approx([-3, -2])


def test_it_registers_itself() -> None:
    assert dstbench_set.dstbench_sparsifiers() == [SET]
    assert SET.name == "set"
