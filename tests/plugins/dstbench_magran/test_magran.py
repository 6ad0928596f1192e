import dstbench_magran
import torch
from dstbench_magran import MagRan
from torch import nn


def attached(seed: int = 0) -> tuple[nn.Linear, torch.optim.Optimizer, MagRan]:
    """Four active weights, two of which (1 and −1) every update drops."""
    model = nn.Linear(5, 2, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    sparsifier = MagRan(
        0.6,
        total_steps=10**6,
        seed=seed,
        exploration_frequency=1,
        prune_rate=0.5,
        prune_schedule="constant",
    ).attach(model, optimizer)
    return model, optimizer, sparsifier


WEIGHT = torch.tensor([[3.0, 1.0, -1.0, -4.0, 0.0], [0.0] * 5])


def update(model: nn.Linear, optimizer: torch.optim.Optimizer, sparsifier: MagRan) -> torch.Tensor:
    (layer,) = sparsifier.layers
    with torch.no_grad():
        layer.mask.copy_(WEIGHT != 0)
        model.weight.copy_(WEIGHT)
    optimizer.step()
    return layer.mask.clone()


def test_the_largest_stay_and_growth_is_uniform_over_all_others() -> None:
    model, optimizer, sparsifier = attached()
    updates, grown, pairs = 2000, torch.zeros(2, 5), 0
    for _ in range(updates):
        mask = update(model, optimizer, sparsifier)
        assert mask[0, 0]
        assert mask[0, 3]
        assert mask.sum() == 4
        pairs += int(mask[0, 1] & mask[0, 2])
        assert torch.equal(model.weight, WEIGHT * mask), "regrown ones keep their values"
        grown += mask
    counts = torch.cat([grown[0, [1, 2, 4]], grown[1]])
    expected = updates * 2 / 8
    # two of eight without replacement: χ² with 7 degrees of freedom after scaling by
    # (8 − 1) / (8 − 2); its 99.9 % quantile is 24.3
    assert ((counts - expected).square() / expected).sum() * 7 / 6 < 24.3
    assert abs(pairs - updates / 28) < 3.3 * (updates / 28) ** 0.5


def test_growth_depends_on_the_seed_alone() -> None:
    def masks(seed: int, global_seed: int) -> torch.Tensor:
        torch.manual_seed(global_seed)
        parts = attached(seed)
        return torch.stack([update(*parts) for _ in range(10)])

    assert torch.equal(masks(1, global_seed=0), masks(1, global_seed=5))
    assert not torch.equal(masks(1, global_seed=0), masks(2, global_seed=0))


def test_it_needs_no_dense_gradient() -> None:
    _, _, sparsifier = attached()
    assert sparsifier.dense_gradient_steps(1000) == 0


def test_it_registers_itself() -> None:
    assert dstbench_magran.dstbench_sparsifiers() == [MagRan]
    assert MagRan.name == "magran"
