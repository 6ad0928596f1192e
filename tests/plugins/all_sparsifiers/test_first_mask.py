"""What makes the methods comparable: the same network and mask to start from."""

import torch
from dstbench_magran import MagRan
from dstbench_rigl import RigL
from dstbench_static import Static
from torch import nn

from dstbench.sparsity import Sparsifier


def first_weights(kind: type[Sparsifier], sparsity: float, seed: int) -> torch.Tensor:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GRU(8, 5, bidirectional=True), nn.Linear(10, 4))
    kind(sparsity, total_steps=100, seed=seed).attach(model, torch.optim.AdamW(model.parameters()))
    return nn.utils.parameters_to_vector(model.parameters())


def test_all_methods_start_from_the_same_masked_network() -> None:
    for sparsity in (0.0, 0.5, 0.9):
        static = first_weights(Static, sparsity, seed=3)
        assert torch.equal(static, first_weights(RigL, sparsity, seed=3))
        assert torch.equal(static, first_weights(MagRan, sparsity, seed=3))
        other = first_weights(Static, sparsity, seed=4)
        assert torch.equal(static, other) == (sparsity == 0)
