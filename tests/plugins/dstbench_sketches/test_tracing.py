"""Lines drawn, then traced: the strokes come back."""

import numpy as np
import pytest
from dstbench_sketches.sketch import to_item, to_strokes
from dstbench_sketches.tracing import trace
from PIL import Image, ImageDraw


def drawn(*lines: list[tuple[float, float]], size: int = 16, width: float = 1.5) -> np.ndarray:
    """A picture (size, size) in [0, 1] of lines, in pixels of that picture."""
    image = Image.new("L", (size * 8, size * 8))
    pen = ImageDraw.Draw(image)
    for line in lines:
        points = [(x * 8, y * 8) for x, y in line]
        pen.line(points, fill=255, width=round(width * 8), joint="curve")
        for x, y in points:
            pen.circle((x, y), width * 4, fill=255)
    return np.asarray(image.reduce(8)) / 255


def ring(x: float, y: float, radius: float) -> list[tuple[float, float]]:
    angles = np.linspace(0, 2 * np.pi, 60)
    return [(x + radius * np.sin(a), y - radius * np.cos(a)) for a in angles]


def farthest(stroke, line) -> float:
    """The largest distance of a stroke's points from a line of many points."""
    gaps = stroke[:, None] - np.asarray(line)[None]
    return float(np.hypot(gaps[..., 0], gaps[..., 1]).min(axis=1).max())


def length(stroke) -> float:
    return float(np.hypot(*np.diff(stroke, axis=0).T).sum())


def test_a_straight_line_is_one_stroke_from_its_top() -> None:
    (stroke,) = trace(drawn([(8, 13), (8, 3)]))
    np.testing.assert_allclose(stroke[:, 0], 8, atol=0.2)
    assert (np.diff(stroke[:, 1]) > 0).all()
    np.testing.assert_allclose(stroke[[0, -1], 1], [3, 13], atol=1)


def test_a_level_line_is_drawn_from_the_left() -> None:
    (stroke,) = trace(drawn([(13, 8), (3, 8)]))
    assert (np.diff(stroke[:, 0]) > 0).all()


def test_a_ring_is_one_closed_stroke_from_its_top_leftwards() -> None:
    line = ring(8, 8, 5)
    (stroke,) = trace(drawn(line))
    np.testing.assert_array_equal(stroke[0], stroke[-1])
    assert stroke[0, 1] == stroke[:, 1].min()
    assert stroke[len(stroke) // 4, 0] < stroke[3 * len(stroke) // 4, 0]
    assert farthest(stroke, line) < 0.5
    assert length(stroke) == pytest.approx(2 * np.pi * 5, rel=0.1)


def test_a_cross_is_two_straight_strokes() -> None:
    strokes = trace(drawn([(3, 8), (13, 8)], [(8, 3), (8, 13)]))
    assert len(strokes) == 2
    upright, level = sorted(strokes, key=lambda stroke: np.ptp(stroke[:, 0]))
    assert np.ptp(upright[:, 0]) < 1
    assert np.ptp(level[:, 1]) < 1
    assert length(upright) == pytest.approx(length(level), abs=1)


def test_an_eight_is_one_stroke_through_its_crossing() -> None:
    angles = np.linspace(0, 2 * np.pi, 100)
    line = [(8 + 4 * np.sin(2 * a), 8 + 6 * np.sin(a)) for a in angles]
    (stroke,) = trace(drawn(line, width=1.2))
    assert farthest(stroke, line) < 0.7
    assert length(stroke) == pytest.approx(length(np.array(line)), rel=0.15)


def test_a_nine_is_one_stroke_around_and_down() -> None:
    (stroke,) = trace(drawn(ring(7, 5, 3), [(10, 5), (10, 14)]))
    assert stroke[-1, 1] == pytest.approx(14, abs=1)
    assert length(stroke) == pytest.approx(2 * np.pi * 3 + 9, rel=0.15)


def test_strokes_come_in_writing_order() -> None:
    strokes = trace(drawn([(3, 13), (13, 13)], [(11, 3), (11, 9)], [(4, 3), (4, 9)]))
    starts = [tuple(stroke[0]) for stroke in strokes]
    assert [x < 8 for x, _ in starts] == [True, False, True]
    assert [y < 8 for _, y in starts] == [True, True, False]


def test_a_bump_on_a_line_is_no_stroke() -> None:
    strokes = trace(drawn([(8, 3), (8, 13)], [(8, 8), (8.8, 8)]))
    assert len(strokes) == 1


@pytest.mark.parametrize("picture", [np.zeros((8, 8)), np.ones((8, 8)) * 0.1])
def test_where_there_is_no_line_there_is_no_stroke(picture) -> None:
    assert trace(picture) == []


@pytest.mark.parametrize("seed", range(20))
def test_noise_gives_finite_strokes(seed) -> None:
    picture = np.random.default_rng(seed).random((10, 12))
    for stroke in trace(picture):
        assert np.isfinite(stroke).all()
        assert (stroke >= -1).all()
        assert (stroke <= [13, 11]).all()


def test_a_corner_stays_within_a_line_of_its_place() -> None:
    line = [(4, 3), (12, 3), (6, 13)]
    (stroke,) = trace(drawn(line))
    (dense,) = to_strokes(to_item([line], spacing=0.01, scale=1, max_points=10_000))
    dense = dense * np.hypot(2, 10) + line[0]  # the farthest point is the last one
    assert farthest(stroke, dense) < 0.75
    assert farthest(dense, stroke) < 1.5
