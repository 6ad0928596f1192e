"""How many steps cost as much as the dense training."""

from collections.abc import Callable

import pytest
from dstbench_gmp import GMP
from dstbench_rigl import RigL

from dstbench.counting.budget import check_budget, steps_for
from dstbench.errors import ConfigError
from dstbench.settings import MOST_STEPS


@pytest.mark.parametrize(
    ("flops", "steps"),
    [
        (lambda steps: 10 * steps, 100),
        (lambda steps: 5 * steps, 200),
        (lambda steps: 3 * steps, 333),
        (lambda steps: 3 * steps + steps // 10, 322),  # which takes 998, one more 1001
        (lambda steps: 15 * steps, 66),
        (lambda steps: 2000, 1),
        (lambda steps: 0, MOST_STEPS - 1),
    ],
)
def test_the_most_steps_within_a_budget(flops: Callable[[int], float], steps: int) -> None:
    assert steps_for(flops, 1000, 100) == steps


def test_a_method_whose_steps_are_of_unequal_length() -> None:
    often = {"exploration_frequency": 2}
    with pytest.raises(ConfigError, match=r'changes its density in training.*"flops" would'):
        check_budget("time", GMP(0.5, total_steps=100, **often))
    check_budget("flops", GMP(0.5, total_steps=100, **often))
    check_budget("time", RigL(0.5, total_steps=100, **often))
