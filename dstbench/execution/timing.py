"""How long one thing takes relative to another, in one process, with an interval."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from scipy.special import stdtrit

from dstbench.records import Ratio

PRECISION = 0.03
"""Relative half-width of the interval at which a ratio is known well enough; also the relative
difference from which on wall-clock and CPU time disagree."""

LEAST_ROUNDS = 3
"""Rounds that are timed even where they take longer than there is time."""

ENOUGH_ROUNDS = 8
"""Rounds before which an interval is not trusted to be narrow."""


class Elapsed(NamedTuple):
    """Seconds that something took."""

    wall: float
    cpu: float
    """Time of all threads of the process; of this one alone where torch computes with one."""

    def until(self, later: Elapsed) -> Elapsed:
        """The time between two readings of the clocks."""
        return Elapsed(later.wall - self.wall, later.cpu - self.cpu)


def read_clocks(device: torch.device) -> Elapsed:
    """Both clocks, once all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    alone = torch.get_num_threads() == 1
    return Elapsed(time.perf_counter(), time.thread_time() if alone else time.process_time())


def elapsed(action: Callable[[], object], device: torch.device) -> Elapsed:
    """The time that an action takes."""
    before = read_clocks(device)
    action()
    return before.until(read_clocks(device))


def paired_ratio(
    ours: Callable[[], object],
    reference: Callable[[], object],
    *,
    device: torch.device,
    seconds: float,
) -> Ratio:
    """The time of one action ÷ that of another, in rounds of both.

    Both are done once before, to warm up. Which of them begins a round alternates. Rounds end
    when the interval is within ±3 %, or after so many ``seconds``.
    """
    start = time.perf_counter()
    ours()
    reference()
    rounds: list[tuple[Elapsed, Elapsed]] = []
    while True:
        if len(rounds) % 2:
            of_reference, of_ours = elapsed(reference, device), elapsed(ours, device)
        else:
            of_ours, of_reference = elapsed(ours, device), elapsed(reference, device)
        rounds.append((of_ours, of_reference))
        if len(rounds) < LEAST_ROUNDS:
            continue
        ratio = ratio_of(rounds, on_gpu=device.type == "cuda")
        if time.perf_counter() - start >= seconds:
            return ratio
        if len(rounds) >= ENOUGH_ROUNDS and ratio.high <= ratio.ratio * (1 + PRECISION):
            return ratio


def ratio_of(rounds: Sequence[tuple[Elapsed, Elapsed]], *, on_gpu: bool = False) -> Ratio:
    """The ratio of rounds, each of our time and the reference's; there are at least two.

    It is the geometric mean of the rounds' own ratios, and its interval Student's 95 % interval of
    the mean of their logarithms. It is of wall-clock time where that is known to ±3 % and CPU time
    agrees with it, else of CPU time; on a GPU, always of wall-clock time.
    """
    wall = _interval([first.wall / second.wall for first, second in rounds])
    if on_gpu or not all(first.cpu > 0 and second.cpu > 0 for first, second in rounds):
        return Ratio(
            ratio=wall[0], low=wall[1], high=wall[2], clock="wall", wall_ratio=wall[0],
            rounds=len(rounds),
        )  # fmt: skip
    cpu = _interval([first.cpu / second.cpu for first, second in rounds])
    agree = abs(math.log(wall[0] / cpu[0])) <= math.log1p(PRECISION)
    trusted = agree and wall[2] <= wall[0] * (1 + PRECISION)
    ratio, low, high = wall if trusted else cpu
    return Ratio(
        ratio=ratio, low=low, high=high, clock="wall" if trusted else "cpu",
        wall_ratio=wall[0], cpu_ratio=cpu[0], rounds=len(rounds),
    )  # fmt: skip


def _interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean, and both ends of its interval."""
    logarithms = [math.log(ratio) for ratio in ratios]
    mean = statistics.fmean(logarithms)
    quantile = float(stdtrit(len(ratios) - 1, 0.975))
    half = quantile * statistics.stdev(logarithms) / math.sqrt(len(ratios))
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def update_cost(steps: Sequence[float], updates: Sequence[int]) -> float | None:
    """What a topology update adds to training, in ordinary steps: the median over updates.

    Args:
        steps: seconds of each step, in their order.
        updates: positions among them of the steps that an update followed.

    Compared are the step of an update and the next, which may build anew what the update has
    made stale, with the steps before and after these two. ``None`` where no update has such
    neighbours.
    """
    of_update = set(updates)
    costs = []
    for at in updates:
        if at < 1 or at + 2 >= len(steps) or of_update & {at - 2, at - 1, at + 1, at + 2}:
            continue
        ordinary = (steps[at - 1] + steps[at + 2]) / 2
        costs.append((steps[at] + steps[at + 1]) / ordinary - 2)
    return statistics.median(costs) if costs else None
