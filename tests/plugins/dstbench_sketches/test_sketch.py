"""Strokes to sequences and back: small cases by hand, and what always holds."""

import numpy as np
import pytest
from dstbench_sketches.sketch import fit, to_item, to_strokes
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dstbench.errors import DataError

coordinates = st.floats(-1e6, 1e6, width=32)
strokes = st.lists(
    hnp.arrays(np.float64, st.tuples(st.integers(1, 12), st.just(2)), elements=coordinates),
    min_size=1,
    max_size=8,
)


def has_extent(drawing) -> bool:
    points = np.concatenate(drawing)
    return np.hypot(*(points - points[0]).T).max() > 1e-3


drawings = strokes.filter(has_extent)


def spaces(stroke) -> np.ndarray:
    return np.hypot(*np.diff(stroke, axis=0).T)


def test_two_strokes_by_hand() -> None:
    """An L of two strokes: 4 down, then 3 to the right from its foot, at distance 5."""
    item = to_item([[(1, 1), (1, 5)], [(1, 5), (4, 5)]], spacing=0.2, scale=10)
    expected = [(0, y, 0) for y in (0, 2, 4, 6)] + [(0, 8, 1)]
    expected += [(x, 8, 0) for x in (0, 2, 4)] + [(6, 8, 1)]
    assert item.dtype == np.float32
    np.testing.assert_allclose(item, expected, atol=1e-6)


def test_parts_are_equal_along_the_way() -> None:
    """A way of 1.5 by a corner, at most 0.4 apart: four parts of 0.375."""
    (stroke,) = to_strokes(to_item([[(0, 0), (1, 0), (1, 0.5)]], spacing=0.4, scale=1))
    radius = np.hypot(1, 0.5)
    assert len(stroke) == 5  # a way of 1.5 / radius = 1.342 in parts of at most 0.4
    np.testing.assert_allclose(stroke[:3] * radius, [(0, 0), (0.375, 0), (0.75, 0)], atol=1e-6)
    np.testing.assert_allclose(stroke[3:] * radius, [(1, 0.125), (1, 0.5)], atol=1e-6)


def test_a_straight_line_of_length_one_has_21_points_at_spacing_a_twentieth() -> None:
    assert len(to_item([[(3, 3), (3, 10)]])) == 21


def test_a_stroke_without_length_is_one_point() -> None:
    item = to_item([[(0, 0), (0, 1)], [(1, 0)], [(0, 1), (0, 1)]], spacing=1, scale=1)
    np.testing.assert_allclose(item, [(0, 0, 0), (0, 1, 1), (1, 0, 1), (0, 1, 1)])


def test_an_empty_stroke_is_no_stroke() -> None:
    np.testing.assert_array_equal(to_item([[], [(0, 0), (2, 0)]]), to_item([[(0, 0), (2, 0)]]))


@given(drawings)
def test_first_point_is_at_the_origin_and_none_is_farther_than_the_scale(drawing) -> None:
    item = to_item(drawing, scale=10)
    np.testing.assert_array_equal(item[0, :2], [0, 0])
    assert np.hypot(*item[:, :2].T).max() <= 10 * (1 + 1e-5)


@given(drawings, st.sampled_from([0.05, 0.3]))
def test_points_of_a_stroke_are_at_most_the_spacing_apart(drawing, spacing) -> None:
    item = to_item(drawing, spacing=spacing, scale=1, max_points=1_000_000)
    found = to_strokes(item)
    assert len(found) == len(drawing)
    assert max(spaces(stroke).max(initial=0) for stroke in found) <= spacing * (1 + 1e-5)


@given(drawings, st.integers(20, 300))
def test_ends_of_strokes_stay_and_points_are_few_enough(drawing, max_points) -> None:
    item = to_item(drawing, scale=1, max_points=max_points)
    assert len(item) <= max_points
    origin = drawing[0][0]
    radius = np.hypot(*(np.concatenate(drawing) - origin).T).max()
    for stroke, before in zip(to_strokes(item), drawing, strict=True):
        ends = (before[[0, -1]] - origin) / radius
        np.testing.assert_allclose(stroke[[0, -1]], ends, atol=1e-5)


@given(drawings, st.sampled_from([(1, 2), (-300, 0.5), (1000, 1024)]))
def test_neither_place_nor_size_matters(drawing, change) -> None:
    shift, factor = change
    drawing = [np.round(stroke) for stroke in drawing]
    if has_extent(drawing):
        changed = [stroke * factor + shift for stroke in drawing]
        np.testing.assert_allclose(to_item(changed), to_item(drawing), atol=1e-4)


@pytest.mark.parametrize(
    ("drawing", "reason"),
    [
        ([], "empty"),
        ([[], []], "empty"),
        ([[(1, 1)]], "the same"),
        ([[(1, 1), (1, 1)], [(1, 1)]], "the same"),
        ([[(1, 1), (float("nan"), 1)]], "finite"),
        ([[(1, 1), (float("inf"), 1)]], "finite"),
        ([[(-1e308, 1), (1e308, 1)]], "finite"),
        ([[(1, 1), (10**400, 1)]], "list of points"),
        ([[(1, 1), (1,)]], "list of points"),
        ([[1, 2, 3]], "list of points"),
        ([["a"]], "list of points"),
        ([[(1, 1), (2, 2), (3, 3, 3)]], "list of points"),
        ([[(x, 0), (x, 1)] for x in range(151)], "151 strokes are too many for 300 points"),
    ],
)
def test_what_is_no_drawing_is_refused(drawing, reason) -> None:
    with pytest.raises(DataError, match=reason):
        to_item(drawing)


def test_strokes_end_where_the_pen_is_lifted() -> None:
    item = [(0, 0, 0), (1, 1, 1), (2, 2, 0.2), (3, 3, 0)]
    first, second = to_strokes(item)
    np.testing.assert_array_equal(first, [(0, 0), (1, 1)])
    np.testing.assert_array_equal(second, [(2, 2), (3, 3)])


def test_points_that_are_not_finite_are_left_out() -> None:
    item = [(0, 0, 0), (np.nan, 1, 0), (1, np.inf, 1), (2, 2, 1)]
    (stroke,) = to_strokes(item)
    np.testing.assert_array_equal(stroke, [(0, 0), (2, 2)])


def test_fit_fills_the_frame_and_keeps_the_aspect() -> None:
    (stroke,) = fit([np.array([(10.0, 10), (30, 20)])], size=100, margin=10)
    np.testing.assert_allclose(stroke, [(10, 30), (90, 70)])


def test_nothing_to_fit() -> None:
    assert fit([], 10, 1) == []
    assert fit([np.ones((3, 2))], 10, 1) == []
    assert fit([np.array([(-1e308, 0), (1e308, 0)])], 10, 1) == []
