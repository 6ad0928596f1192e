import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstbench.errors import SparsityError
from dstbench.sparsity import Distribution, active_counts, densities

DISTRIBUTIONS = get_args(Distribution)
SHAPES = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 60), st.integers(1, 60)),
        st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 5)),
        st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 3), st.integers(1, 3)),
    ),
    min_size=1,
    max_size=8,
).map(lambda shapes: {f"layer{i}": shape for i, shape in enumerate(shapes)})
SPARSITIES = st.floats(0, 1, exclude_max=True)


def test_er_by_hand() -> None:
    # scores (n_in + n_out) / (n_in · n_out): 6/8 and 18/72; 20 of 80 weights are wanted, so that
    # the scale is 20 / (8 · 6/8 + 72 · 18/72) = 5/6
    shapes = {"a": (4, 2), "b": (6, 12)}
    assert densities(shapes, 0.75, "er") == pytest.approx({"a": 5 / 8, "b": 15 / 72})
    assert active_counts(shapes, 0.75, "er") == {"a": 5, "b": 15}


def test_er_pins_a_layer_at_one_by_hand() -> None:
    # 40 of 80 wanted: the scale 5/3 gives a 1.25; pinned, it leaves 32 for b
    shapes = {"a": (4, 2), "b": (6, 12)}
    assert densities(shapes, 0.5, "er") == pytest.approx({"a": 1.0, "b": 32 / 72})
    assert active_counts(shapes, 0.5, "er") == {"a": 8, "b": 32}


def test_pinning_one_layer_may_push_another_over_one() -> None:
    # 102 of 420 wanted: scale 102/52 puts a (score 1) above 1 and b (1/2) below; without a it is
    # 98/48, which puts b above too; c (1/10) has the 82 that are left
    shapes = {"a": (2, 2), "b": (4, 4), "c": (20, 20)}
    found = densities(shapes, 1 - 102 / 420, "er")
    assert found == pytest.approx({"a": 1.0, "b": 1.0, "c": 82 / 400})


def test_erk_counts_the_kernel_and_er_does_not() -> None:
    shapes = {"conv": (4, 2, 3, 3), "linear": (6, 12)}
    # erk: scores 12/72 and 18/72, scale 72/30; er: 6/8 and 18/72, scale 72/72
    assert densities(shapes, 0.5, "erk") == pytest.approx({"conv": 0.4, "linear": 0.6})
    assert densities(shapes, 0.5, "er") == pytest.approx({"conv": 0.75, "linear": 0.25})
    # 28.8 and 43.2: the one that is missing goes to the larger remainder
    assert active_counts(shapes, 0.5, "erk") == {"conv": 29, "linear": 43}


def test_uniform_is_the_same_everywhere() -> None:
    shapes = {"a": (10, 10), "b": (5, 4, 3, 3)}
    assert densities(shapes, 0.9, "uniform") == pytest.approx({"a": 0.1, "b": 0.1})
    assert active_counts(shapes, 0.9, "uniform") == {"a": 10, "b": 18}


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_sparsity_zero_keeps_every_weight(distribution: Distribution) -> None:
    shapes = {"a": (3, 7), "b": (31, 17, 3, 3), "c": (1, 1), "d": (1000, 999)}
    assert densities(shapes, 0.0, distribution) == pytest.approx(dict.fromkeys(shapes, 1.0))
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    assert active_counts(shapes, 0.0, distribution) == sizes


@given(SHAPES, SPARSITIES, st.sampled_from(DISTRIBUTIONS))
def test_counts_are_exact(shapes: Any, sparsity: float, distribution: Distribution) -> None:
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    counts = active_counts(shapes, sparsity, distribution)
    assert sum(counts.values()) == round((1 - sparsity) * sum(sizes.values()))
    assert all(isinstance(count, int) for count in counts.values())
    assert all(0 <= counts[name] <= sizes[name] for name in sizes)
    for name, density in densities(shapes, sparsity, distribution).items():
        assert 0 <= density <= 1
        assert abs(counts[name] - density * sizes[name]) < 1 + 1e-6


@given(SHAPES, SPARSITIES, st.sampled_from(["er", "erk"]))
def test_capping_agrees_with_bisection(
    shapes: Any, sparsity: float, distribution: Distribution
) -> None:
    """The fixed point is density = min(1, ε · score), ε such that the total is as wanted."""
    score = {
        name: sum(counted) / math.prod(counted)
        for name, shape in shapes.items()
        for counted in [shape if distribution == "erk" else shape[:2]]
    }
    size = {name: math.prod(shape) for name, shape in shapes.items()}
    wanted = (1 - sparsity) * sum(size.values())
    low, high = 0.0, 2 / min(score.values())
    for _ in range(200):
        middle = (low + high) / 2
        total = sum(min(1, middle * score[name]) * size[name] for name in shapes)
        low, high = (middle, high) if total < wanted else (low, middle)
    expected = {name: min(1, low * score[name]) for name in shapes}
    assert densities(shapes, sparsity, distribution) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("sparsity", [1, 1.2, -0.1, math.nan])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_sparsity_out_of_range_is_refused(sparsity: float, distribution: Distribution) -> None:
    with pytest.raises(SparsityError, match="at least 0 and below 1"):
        active_counts({"a": (4, 2)}, sparsity, distribution)


def test_a_vector_has_no_erdos_renyi_density() -> None:
    with pytest.raises(SparsityError, match=r"gain: .* two or more dimensions, not \(8,\)"):
        densities({"a": (4, 2), "gain": (8,)}, 0.5, "er")
