"""Tests of paired differences, against numbers worked by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp, ttest_rel

from dstbench.report.statistics import holm, paired

NAN = math.nan

# Differences −1, −1, −2: mean −4/3, standard error √(1/3) / √3 = 1/3. At two degrees of freedom
# Student's distribution function is 1/2 + t / (2 √(2 + t²)), and its 0.975 quantile is
# 0.95 √2 / √(1 − 0.95²).
OURS, THEIRS = {0: 9.0, 1: 11.0, 2: 12.0}, {0: 10.0, 1: 12.0, 2: 14.0}
QUANTILE = 0.95 * math.sqrt(2) / math.sqrt(1 - 0.95**2)


def cdf(t: float) -> float:
    return 0.5 + t / (2 * math.sqrt(2 + t * t))


def test_a_paired_t_test_by_hand() -> None:
    found = paired(OURS, THEIRS)
    assert (found.seeds, found.mean) == (3, pytest.approx(-4 / 3))
    assert found.p() == pytest.approx(1 - 4 / math.sqrt(18))  # t = −4
    assert found.interval == pytest.approx((-4 / 3 - QUANTILE / 3, -4 / 3 + QUANTILE / 3))


def test_equivalence_by_hand() -> None:
    found = paired(OURS, THEIRS)
    # Within ± 2: (−4/3 + 2) / (1/3) = 2 above the lower bound, (−4/3 − 2) / (1/3) = −10 below.
    assert found.p(-2, "greater") == pytest.approx(1 - cdf(2))
    assert found.p(2, "less") == pytest.approx(cdf(-10))
    assert found.p_equivalent(2) == pytest.approx(1 - cdf(2))
    assert found.p_equivalent(1) == pytest.approx(1 - cdf(-1))  # the mean lies outside
    assert math.isnan(found.p_equivalent(NAN))


def test_only_common_seeds_are_compared() -> None:
    found = paired({1: 5.0, 2: 6.0}, {0: 100.0, 1: 7.0})
    assert (found.seeds, found.mean) == (1, -2)
    assert math.isnan(found.p())
    assert all(map(math.isnan, found.interval))


def test_without_a_common_seed_there_is_no_difference() -> None:
    found = paired({0: 1.0}, {1: 1.0})
    assert found.seeds == 0
    assert math.isnan(found.mean)
    assert math.isnan(found.p())


@pytest.mark.parametrize(
    ("ps", "corrected"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.5, 0.4, 0.9], [1.0, 1.0, 1.0]),
        ([0.02, NAN, 0.01], [0.02, NAN, 0.02]),  # what was not tested does not count
        ([0.01, 0.01, 0.01], [0.03, 0.03, 0.03]),
        ([NAN], [NAN]),
        ([], []),
    ],
)
def test_holm_by_hand(ps: list[float], corrected: list[float]) -> None:
    assert holm(ps) == pytest.approx(corrected, nan_ok=True)


SCORES = st.dictionaries(st.integers(0, 9), st.floats(-1e3, 1e3), min_size=1)
PAIRS = st.dictionaries(
    st.integers(0, 9), st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=1
)


@given(SCORES, st.floats(-1e3, 1e3))
def test_equal_differences_say_nothing_about_noise(theirs: dict[int, float], by: float) -> None:
    found = paired({seed: value + by for seed, value in theirs.items()}, theirs)
    assert found.mean == pytest.approx(by, abs=1e-9)
    assert math.isnan(found.p())
    assert math.isnan(found.p_equivalent(1e6))


@given(PAIRS)
def test_swapping_the_sides_changes_only_the_sign(pairs: dict[int, tuple[int, int]]) -> None:
    ours = {seed: float(a) for seed, (a, _) in pairs.items()}
    theirs = {seed: float(b) for seed, (_, b) in pairs.items()}
    found, swapped = paired(ours, theirs), paired(theirs, ours)
    assert found.mean == -swapped.mean
    assert found.p() == pytest.approx(swapped.p(), nan_ok=True)
    assert found.p_equivalent(3) == pytest.approx(swapped.p_equivalent(3), nan_ok=True)
    assert found.p(3, "less") == pytest.approx(swapped.p(-3, "greater"), nan_ok=True)
    low, high = swapped.interval
    assert found.interval == pytest.approx((-high, -low), nan_ok=True)


@given(PAIRS)
def test_the_interval_and_the_test_agree(pairs: dict[int, tuple[int, int]]) -> None:
    found = paired(
        {seed: float(a) for seed, (a, _) in pairs.items()},
        {seed: float(b) for seed, (_, b) in pairs.items()},
    )
    low, high = found.interval
    if found.spread and abs(found.p() - 0.05) > 1e-9:
        assert (low <= 0 <= high) == (found.p() > 0.05)


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=2, max_size=9))
def test_scipy_has_the_same_tests(pairs: list[tuple[int, int]]) -> None:
    ours, theirs = ({seed: float(pair[i]) for seed, pair in enumerate(pairs)} for i in (0, 1))
    found = paired(ours, theirs)
    if found.spread:
        expected = ttest_rel(list(ours.values()), list(theirs.values()))
        assert found.p() == pytest.approx(expected.pvalue)
        assert found.interval == pytest.approx(tuple(expected.confidence_interval()), abs=1e-9)
        for direction in ("less", "greater"):
            one_sided = ttest_1samp(found.values, 2, alternative=direction)
            assert found.p(2, direction) == pytest.approx(one_sided.pvalue)


P_VALUES = st.lists(st.floats(0, 1) | st.just(NAN), max_size=8)


@given(P_VALUES)
def test_holm_keeps_the_order_and_only_raises(ps: list[float]) -> None:
    corrected = holm(ps)
    known = [(p, c) for p, c in zip(ps, corrected, strict=True) if not math.isnan(p)]
    assert all(p <= c <= 1 for p, c in known)
    assert [c for _, c in sorted(known)] == sorted(c for _, c in known)
    bonferroni = [min(1, len(known) * p) for p, _ in known]
    assert all(c <= b for (_, c), b in zip(known, bonferroni, strict=True))


@given(P_VALUES, st.randoms())
def test_holm_does_not_depend_on_the_order(ps: list[float], random: object) -> None:
    order = list(range(len(ps)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert holm([ps[i] for i in order]) == pytest.approx([holm(ps)[i] for i in order], nan_ok=True)
