import pytest
from dstbench_set_decay import SetDecay

from dstbench.testing import Check, checks


@pytest.mark.parametrize("check", checks(SetDecay), ids=str)
def test_keeps_its_promises(check: Check) -> None:
    check()


def test_the_prune_rate_by_hand() -> None:
    sparsifier = SetDecay(0.5, total_steps=80, stop_fraction=0.5, prune_rate=0.4, decay=0.01)
    rates = [sparsifier.prune_rate_at(step) for step in (0, 20, 40)]
    assert rates == pytest.approx([0.4, 0.04, 0.004])


def test_without_decay_it_is_the_schedule() -> None:
    settings = {"prune_rate": 0.4, "prune_schedule": "linear", "stop_fraction": 1.0, "decay": 1.0}
    assert SetDecay(0.5, total_steps=80, **settings).prune_rate_at(20) == pytest.approx(0.3)
