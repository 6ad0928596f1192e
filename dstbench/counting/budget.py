"""How many optimizer steps cost as much as the dense network's training."""

from __future__ import annotations

from collections.abc import Callable

from dstbench.errors import ConfigError
from dstbench.settings import MOST_STEPS, BudgetKind
from dstbench.sparsity import DynamicSparsifier, Sparsifier


def check_budget(budget: BudgetKind, sparsifier: Sparsifier) -> None:
    """Refuse a method whose steps do not all take the same time, where that is to be measured
    before the training.

    Raises:
        ConfigError: saying what would be right.
    """
    if budget != "time" or not isinstance(sparsifier, DynamicSparsifier):
        return
    if sparsifier.density_at(0) != sparsifier.final_density:
        raise ConfigError(
            'budget is "time", but the method changes its density in training, so that the time of '
            'its steps is not known before; "flops" would be right'
        )


def steps_for(flops: Callable[[int], float], budget: float, steps: int) -> int:
    """The most optimizer steps whose training takes at most ``budget`` FLOPs; at least one.

    Args:
        flops: FLOPs of a whole training of so many steps, whose schedules follow that number.
        steps: where to begin to look.
    """
    least, most = 1, steps
    while most < MOST_STEPS and flops(most) <= budget:
        least, most = most, min(2 * most, MOST_STEPS)
    while most - least > 1:
        between = (least + most) // 2
        if flops(between) <= budget:
            least = between
        else:
            most = between
    return least
