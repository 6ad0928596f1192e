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


# As in ChiroDiff's code


def published(drawing, **settings):
    return to_item(drawing, resampling="published", **settings)


def test_points_of_a_stroke_as_published() -> None:
    """A straight line of length 1: max(2, ⌊1 / spacing⌋) points, its ends among them."""
    line = [[(3, 3), (3, 10)]]
    np.testing.assert_allclose(
        published(line, spacing=0.3, scale=6), [(0, 0, 0), (0, 3, 0), (0, 6, 1)], atol=1e-6
    )
    assert [len(published(line, spacing=s)) for s in (0.26, 0.21, 0.9, 5)] == [3, 4, 2, 2]


def test_strokes_of_one_point_are_left_out_as_published() -> None:
    """The first point of what is left is the origin."""
    dotted = [[(9, 9)], [(1, 1), (1, 3)], [(5, 5)]]
    np.testing.assert_array_equal(published(dotted), published([[(1, 1), (1, 3)]]))
    with pytest.raises(DataError, match="no stroke has more than one point"):
        published([[(0, 0)], [(1, 1)]])


def test_long_drawings_are_left_out_as_published() -> None:
    """Of 20 points, where less than 20 are kept."""
    line = [[(0, 0), (1, 0)], [(1, 0), (0, 0)]]
    assert len(published(line, spacing=0.099, max_points=21)) == 20
    with pytest.raises(DataError, match="it would have 20 points; less than 20 are kept"):
        published(line, spacing=0.099, max_points=20)


def test_the_farthest_point_is_at_the_scale_after_resampling_as_published() -> None:
    """A corner that resampling cuts off."""
    corner = [[(0, 0), (3, 4), (3, 0)]]
    item = published(corner, spacing=0.6, scale=10)
    assert np.hypot(*item[:, :2].T).max() == pytest.approx(10)
    assert len(item) == 3  # a way of 9 / 5 in parts of 0.6


def test_nothing_is_left_of_a_loop_that_is_only_its_ends() -> None:
    with pytest.raises(DataError, match="all points of the drawing are the same"):
        published([[(0, 0), (1, 0), (0, 0)]], spacing=5)


@given(drawings)
def test_published_points_are_fewer(drawing) -> None:
    longer = [stroke for stroke in drawing if len(stroke) > 1]
    try:
        item = published(drawing, max_points=10_000)
    except DataError:
        return
    even = to_strokes(to_item(longer, max_points=100_000))
    ours = to_strokes(item)
    assert len(ours) == len(even)
    for few, many in zip(ours, even, strict=True):
        assert len(few) <= max(2, len(many) - 1)
