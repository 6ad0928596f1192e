import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstbench.sparsity.schedules import prune_rate_at


@pytest.mark.parametrize(
    ("schedule", "at_start", "at_third", "at_half", "at_end"),
    [
        ("constant", 0.4, 0.4, 0.4, 0.4),
        ("linear", 0.4, 0.4 * 2 / 3, 0.2, 0.0),
        ("cosine", 0.4, 0.3, 0.2, 0.0),  # cos(π/3) = 1/2
    ],
)
def test_by_hand(
    schedule: str, at_start: float, at_third: float, at_half: float, at_end: float
) -> None:
    found = [prune_rate_at(schedule, 0.4, progress) for progress in (0, 1 / 3, 1 / 2, 1)]
    assert found == pytest.approx([at_start, at_third, at_half, at_end])


@given(
    st.sampled_from(["constant", "linear", "cosine"]),
    st.floats(0, 1).filter(lambda rate: rate == 0 or rate > 1e-300),  # half of it is exact
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_falls_and_stays_a_fraction(schedule: str, rate: float, one: float, other: float) -> None:
    earlier, later = sorted((one, other))
    assert 0 <= prune_rate_at(schedule, rate, later) <= prune_rate_at(schedule, rate, earlier)
    assert prune_rate_at(schedule, rate, earlier) <= rate
