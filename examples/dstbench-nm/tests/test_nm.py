import pytest
import torch
from dstbench_nm import NM
from torch import Tensor, nn

from dstbench.errors import SparsityError
from dstbench.testing import Check, checks


@pytest.mark.parametrize("check", checks(NM), ids=str)
def test_keeps_its_promises(check: Check) -> None:
    check()


def attached(model: nn.Module, sparsity: float = 0.5, **settings: float) -> NM:
    sparsifier = NM(sparsity, total_steps=100, exploration_frequency=1, **settings)
    return sparsifier.attach(model, torch.optim.SGD(model.parameters(), lr=0.0))


def test_a_group_is_filled_by_the_highest_scores() -> None:
    sparsifier = attached(nn.Linear(8, 2, bias=False))
    (layer,) = sparsifier.layers
    kept = torch.zeros(2, 8, dtype=torch.bool)
    kept[0, 0] = kept[1, 6] = kept[1, 7] = True
    scores = torch.tensor([[0, 1, 3, 2, 5, 5, 5, 9], [1, 2, 3, 4, 9, 9, 0, 0]])
    expected = [[1, 0, 1, 0, 1, 0, 0, 1], [0, 0, 1, 1, 0, 0, 1, 1]]
    assert sparsifier.select_mask(layer, kept, scores).int().tolist() == expected


def test_an_update_by_hand() -> None:
    model = nn.Linear(8, 1, bias=False)
    sparsifier = attached(model, prune_rate=0.5, prune_schedule="constant")
    (layer,) = sparsifier.layers
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[9.0, 8, 0, 0, 2, 1, 0, 0]]))
        layer.mask.copy_(layer.weight != 0)
    gradient = torch.tensor([[9.0, 9, 9, 9, 1, 3, -5, 4]])
    (layer.weight * gradient).sum().backward()
    optimizer.step()
    # of the whole layer 2 and 1 are dropped; their group grows where |gradient| is 5 and 4
    assert layer.mask.int().tolist() == [[1, 1, 0, 0, 0, 0, 1, 1]]


def in_groups(mask: Tensor, m: int) -> Tensor:
    """Active connections of every group."""
    return mask.movedim(1, -1).reshape(-1, m).sum(1)


@pytest.mark.parametrize(("sparsity", "m", "n"), [(0.5, 4, 2), (0.75, 4, 1), (0.875, 8, 1)])
def test_every_group_has_n_of_m_throughout_training(sparsity: float, m: int, n: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 16, 3), nn.Conv2d(16, 2, 1))
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    sparsifier = NM(sparsity, total_steps=100, exploration_frequency=2, m=m)
    first, *others = sparsifier.attach(model, optimizer).layers
    before = others[0].mask.clone()
    for step in range(7):
        model(torch.randn(2, 3, 6, 6)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert first.mask.all(), "three inputs fill no group"
        for layer in others:
            assert (in_groups(layer.mask, m) == n).all(), (step, layer.name)
    assert not torch.equal(others[0].mask, before)


def test_recurrent_layers_have_groups_too() -> None:
    layers = attached(nn.GRU(8, 4)).layers
    assert [layer.name for layer in layers] == ["weight_ih_l0", "weight_hh_l0"]
    assert all((in_groups(layer.mask, 4) == 2).all() for layer in layers)


@pytest.mark.parametrize("sparsity", [0.3, 0.9, 0.99])
def test_a_sparsity_that_is_no_n_of_m(sparsity: float) -> None:
    with pytest.raises(SparsityError, match=r"with m = 4, S may be 0, 0\.25, 0\.5, 0\.75$"):
        NM(sparsity, total_steps=1)


def test_rounding_is_no_obstacle() -> None:
    assert NM(0.9, total_steps=1, m=10).n == 1  # (1 − 0.9) · 10 is 0.9999999999999998
