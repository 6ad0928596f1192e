"""What masks cost a GPU: it is waited for at topology updates alone, and there a few times."""

import warnings
from collections.abc import Iterator
from typing import Any

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
    def __init__(self, kind: type[Sparsifier], **settings: Any) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 8)).cuda()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.sparsifier = kind(0.8, total_steps=100, distribution="uniform", **settings)
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


@pytest.mark.parametrize("kind", [RigL, MagRan])
def test_an_update_waits_a_few_times_in_each_layer(kind: type[Sparsifier]) -> None:
    training = Training(kind, exploration_frequency=2)
    training.step()

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        training.step()
        torch.cuda.set_sync_debug_mode("default")

    waits = [each for each in told if "synchronizing" in str(each.message)]
    assert training.sparsifier.topology_updates == 1
    assert 0 < len(waits) <= 8 * len(training.sparsifier.layers) + 8


def test_what_is_written_without_torchs_knowing_is_masked_again() -> None:
    training = Training(Static)
    training.step()
    for layer in training.sparsifier.layers:
        layer.weight.data.add_(1)

    training.step()

    training.sparsifier.verify()
