"""What masks cost a GPU: it is never waited for, but at topology updates."""

from collections.abc import Iterator

import pytest
import torch
from dstbench_magran import MagRan
from dstbench_rigl import RigL
from dstbench_static import Static
from torch import nn

from dstbench.sparsity import Sparsifier

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode"),
]


@pytest.fixture
def waiting_fails() -> Iterator[None]:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


class Training:
    def __init__(self, kind: type[Sparsifier]) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 8)).cuda()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.sparsifier = kind(0.8, total_steps=100, distribution="uniform")
        self.sparsifier.attach(self.model, self.optimizer)
        self.batch = torch.randn(16, 32, device="cuda")

    def step(self) -> None:
        self.model(self.batch).square().mean().backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


@pytest.mark.parametrize("kind", [Static, RigL, MagRan])
def test_no_step_between_updates_waits(
    kind: type[Sparsifier], request: pytest.FixtureRequest
) -> None:
    training = Training(kind)
    training.step()
    request.getfixturevalue("waiting_fails")

    for _ in range(3):
        training.step()

    torch.cuda.set_sync_debug_mode("default")
    training.sparsifier.verify()


def test_what_is_written_without_torchs_knowing_is_masked_again() -> None:
    training = Training(Static)
    training.step()
    for layer in training.sparsifier.layers:
        layer.weight.data.add_(1)

    training.step()

    training.sparsifier.verify()
