"""Pictures of sketches: where the lines are, what does not matter, and nothing that crashes."""

from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from dstbench_sketches.raster import rasterise, to_svg
from dstbench_sketches.sketch import to_item
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

CROSS = to_item([[(0, 0), (10, 10)], [(0, 10), (10, 0)]])


def picture(item, size: int = 32, line_width: float = 0.1) -> np.ndarray:
    (drawn,) = rasterise([item], size, line_width)
    return drawn


def test_a_horizontal_line() -> None:
    """A tenth of 40 pixels wide, in the middle, from margin to margin."""
    drawn = picture(to_item([[(0, 0), (1, 0)]]), size=40)
    assert drawn.dtype == np.uint8
    assert drawn.shape == (40, 40)
    rows = np.flatnonzero(drawn.max(axis=1) > 127)
    columns = np.flatnonzero(drawn.max(axis=0) > 127)
    assert (rows.min(), rows.max()) in {(18, 21), (18, 22)}
    assert (columns.min(), columns.max()) in {(1, 38), (1, 39), (0, 38)}
    assert drawn[20, 20] == 255
    assert drawn[10, 20] == 0


def test_edges_are_smooth() -> None:
    drawn = picture(CROSS)
    assert len(np.unique(drawn)) > 5
    assert (drawn.min(), drawn.max()) == (0, 255)


def test_no_line_is_drawn_while_the_pen_is_lifted() -> None:
    apart = [(0, 0, 0), (0, 10, 1), (10, 0, 0), (10, 10, 1)]
    assert picture(apart)[16, 16] == 0
    joined = [(0, 0, 0), (0, 10, 0), (10, 0, 0), (10, 10, 1)]
    assert picture(joined)[16, 16] == 255


def test_a_dot_is_drawn() -> None:
    assert picture([(0, 0, 0), (0, 10, 1), (10, 5, 1)])[16, 30] > 0


@given(
    st.integers(-1000, 1000).map(lambda value: value / 4),
    st.sampled_from([0.25, 0.5, 2, 4, 1024]),
)
def test_neither_place_nor_size_matters(shift, factor) -> None:
    moved = CROSS * [factor, factor, 1] + [shift, -shift, 0]
    # Where rounding to the oversampled pixels tips over, an edge moves by a quarter of a pixel.
    difference = np.abs(picture(moved).astype(int) - picture(CROSS))
    assert difference.mean() < 2
    assert difference.max() < 128


def test_turning_a_sketch_turns_its_picture() -> None:
    item = to_item([[(0, 0), (10, 3), (4, 9)]])
    turned = item.copy()
    turned[:, :2] = item[:, [1, 0]]
    assert np.abs(picture(turned).astype(int) - picture(item).T).mean() < 2


@pytest.mark.parametrize(
    "item",
    [
        np.zeros((0, 3)),
        np.zeros((5, 3)),
        np.full((5, 3), np.nan),
        np.full((5, 3), np.inf),
        [(-1e308, 0, 0), (1e308, 0, 1)],
    ],
)
def test_what_has_no_extent_is_black(item) -> None:
    assert picture(item).max() == 0
    assert "path" not in to_svg(item)


def test_a_point_far_away_leaves_the_rest_small() -> None:
    assert picture([(0, 0, 0), (1, 1, 0), (1e30, 1e30, 0)]).max() > 0


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(0, 20), st.just(3)), elements=st.floats(width=32)),
    st.sampled_from([8, 32]),
    st.sampled_from([0.01, 0.14, 0.5]),
)
def test_whatever_a_network_makes_has_a_picture(item, size, line_width) -> None:
    assert picture(item, size, line_width).shape == (size, size)
    ElementTree.fromstring(to_svg(item))


def test_tensors_are_items_too() -> None:
    items = torch.from_numpy(np.stack([CROSS, CROSS]))
    drawn = rasterise(items, 32, 0.1)
    np.testing.assert_array_equal(drawn, [picture(CROSS)] * 2)


def test_no_sketches_no_pictures() -> None:
    assert rasterise([], 32, 0.1).shape == (0, 32, 32)


def test_svg_draws_the_strokes() -> None:
    svg = ElementTree.fromstring(to_svg([(0, 0, 0), (4, 0, 1), (4, 4, 1)], 100, 0.1))
    paths = svg.findall(".//{http://www.w3.org/2000/svg}path")
    # 7 of 100 pixels are margin: half a line, and two.
    assert [path.get("d") for path in paths] == [
        "M7.00 7.00L93.00 7.00",
        "M93.00 93.00L93.00 93.00",
    ]
    assert svg.get("viewBox") == "0 0 100 100"
