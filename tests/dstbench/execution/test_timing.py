"""Ratios of times, of made-up times."""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from scipy.stats import t as students_t

from dstbench.execution import timing
from dstbench.execution.timing import Elapsed, paired_ratio, ratio_of, read_clocks, update_cost

CPU = torch.device("cpu")
Rounds = list[tuple[Elapsed, Elapsed]]


def rounds_of(wall: list[float], cpu: list[float]) -> Rounds:
    """Rounds in which the reference takes one second, by both clocks."""
    return [(Elapsed(*ours), Elapsed(1, 1)) for ours in zip(wall, cpu, strict=True)]


def test_a_ratio_and_its_interval_by_hand() -> None:
    # Logarithms −1, 0 and 1: mean 0, standard deviation 1, t = 4.303 at two degrees of freedom.
    times = [math.exp(-1), 1.0, math.e]
    ratio = ratio_of(rounds_of(times, times))
    half = students_t.ppf(0.975, 2) / math.sqrt(3)
    assert (ratio.ratio, ratio.rounds) == (pytest.approx(1), 3)
    assert math.log(ratio.high) == pytest.approx(half)
    assert math.log(ratio.low) == pytest.approx(-half)


STEADY = [0.500, 0.501, 0.499] * 3
UNSTEADY = [0.3, 0.5, 0.8] * 3


@pytest.mark.parametrize(
    ("wall", "cpu", "clock", "ratio"),
    [
        (STEADY, STEADY, "wall", 0.5),
        (STEADY, [0.51] * 9, "wall", 0.5),
        (STEADY, [0.53] * 9, "cpu", 0.53),
        (UNSTEADY, [0.5] * 9, "cpu", 0.5),
        (UNSTEADY, UNSTEADY, "cpu", (0.3 * 0.5 * 0.8) ** (1 / 3)),
        (STEADY, [0.0] * 9, "wall", 0.5),  # of a clock that does not see such short times
    ],
)
def test_which_clock_counts(wall: list[float], cpu: list[float], clock: str, ratio: float) -> None:
    found = ratio_of(rounds_of(wall, cpu))
    assert (found.clock, found.ratio) == (clock, pytest.approx(ratio, rel=1e-4))
    assert found.wall_ratio == pytest.approx(math.prod(wall) ** (1 / 9))
    assert (found.cpu_ratio is None) == (cpu[0] == 0)


def test_a_gpu_has_no_cpu_time() -> None:
    found = ratio_of(rounds_of(UNSTEADY, STEADY), on_gpu=True)
    assert (found.clock, found.cpu_ratio, found.ratio) == ("wall", None, found.wall_ratio)


class Pretended:
    """Actions of given times, and clocks that they move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.called: list[str] = []
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(timing, "read_clocks", lambda device: Elapsed(self.now, self.now))

    def action(self, name: str, seconds: Iterator[float]) -> Callable[[], None]:
        def act() -> None:
            self.called.append(name)
            self.now += next(seconds)

        return act


def endless(*values: float) -> Iterator[float]:
    while True:
        yield from values


def test_rounds_alternate_and_end_when_the_interval_is_narrow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretended = Pretended(monkeypatch)
    ours, reference = (
        pretended.action("ours", endless(0.5)), pretended.action("dense", endless(1.0))
    )  # fmt: skip
    ratio = paired_ratio(ours, reference, device=CPU, seconds=1e6)
    assert (ratio.ratio, ratio.rounds) == (pytest.approx(0.5), timing.ENOUGH_ROUNDS)
    turns = ["ours", "dense", "dense", "ours"]
    assert pretended.called == ["ours", "dense", *(turns * 4)]  # the first two to warm up


@pytest.mark.parametrize(("seconds", "rounds"), [(0, 3), (11, 5)])
def test_rounds_end_when_time_is_up(
    monkeypatch: pytest.MonkeyPatch, seconds: float, rounds: int
) -> None:
    pretended = Pretended(monkeypatch)
    ours = pretended.action("ours", endless(1.0, 0.5, 1.5))
    reference = pretended.action("dense", endless(1.0))
    ratio = paired_ratio(ours, reference, device=CPU, seconds=seconds)
    assert ratio.rounds == rounds
    assert ratio.high > 1.03 * ratio.ratio


def test_the_first_call_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    pretended = Pretended(monkeypatch)

    def slow_first() -> Iterator[float]:
        yield 100.0
        yield from endless(1.0)

    actions = pretended.action("ours", slow_first()), pretended.action("dense", slow_first())
    assert paired_ratio(*actions, device=CPU, seconds=300).ratio == pytest.approx(1)


def test_what_a_topology_update_costs() -> None:
    # 1.5 and 1.2 steps in place of two: the update's own, and what it leaves to the next.
    steps = [9.0, 1, 1, 1.5, 1.2, 1, 2, 2, 3, 2.4, 2, 2]
    assert update_cost(steps, [3]) == pytest.approx(0.7)
    assert update_cost(steps, [3, 8]) == pytest.approx(0.7)  # in steps of its neighbours
    assert update_cost(steps, [0, 3, 11]) == pytest.approx(0.7)  # which those at the ends lack
    assert update_cost(steps, [3, 5]) is None
    assert update_cost(steps, []) is None


@pytest.mark.parametrize("threads", [1, 2])
def test_cpu_time_is_of_all_threads_that_compute(
    monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(timing.time, "thread_time", lambda: 1.0)
    monkeypatch.setattr(timing.time, "process_time", lambda: 2.0)
    assert read_clocks(CPU).cpu == threads
