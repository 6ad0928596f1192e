"""Timing a denoiser without data."""

import pytest
import torch
from torch import Tensor, nn

from dstbench.contracts import Outline
from dstbench.planning import speed as timing
from dstbench.planning.speed import measure_speed
from dstbench.settings import TrainingSettings

CPU = torch.device("cpu")


class Clock:
    """Time that goes on only where something takes some."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Slow(nn.Module):
    """Takes a second for each example, and remembers what it was given."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__()
        self.clock, self.seconds = clock, seconds
        self.weight = nn.Parameter(torch.ones(3))
        self.batches: list[tuple[bool, int, list[int]]] = []

    def forward(self, points: Tensor, lengths: Tensor) -> Tensor:
        assert points.shape == (len(lengths), 7, 3)
        self.batches.append((torch.is_grad_enabled(), len(points), lengths.unique().tolist()))
        self.clock.now += self.seconds * len(points)
        return points * self.weight


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


def outline(denoiser: nn.Module) -> Outline:
    return Outline(denoiser, (torch.zeros(1, 7, 3), torch.tensor([7])), 10)


def test_whole_batches_are_timed_where_they_are_quick(clock: Clock) -> None:
    denoiser = Slow(clock, seconds=0.01)
    training = TrainingSettings(batch_size=12, micro_batches=3)
    speed = measure_speed(outline(denoiser), training, 5, CPU)
    assert vars(speed) == pytest.approx({"training_step": 0.12, "call": 0.01})
    trained = [size for learning, size, _ in denoiser.batches if learning]
    # Each batch six times; parts are never larger than those of the real batch.
    assert trained == 6 * [1] + 6 * [2] + 6 * [4] + 6 * [4, 4] + 6 * [4, 4, 4]
    called = [size for learning, size, _ in denoiser.batches if not learning]
    assert called == 6 * [1] + 6 * [2] + 6 * [4] + 6 * [5]
    assert all(lengths == [7] for *_, lengths in denoiser.batches)


def test_slow_batches_are_extrapolated(clock: Clock) -> None:
    denoiser = Slow(clock, seconds=0.4)
    speed = measure_speed(outline(denoiser), TrainingSettings(batch_size=100), 64, CPU)
    assert vars(speed) == pytest.approx({"training_step": 40.0, "call": 0.4})
    assert max(size for _, size, _ in denoiser.batches) == 4


def test_real_steps_change_the_weights(clock: Clock) -> None:
    denoiser = Slow(clock, seconds=0.01)
    measure_speed(outline(denoiser), TrainingSettings(batch_size=2), 2, CPU)
    assert (denoiser.weight != 1).all()
