"""Sketches as sequences of points: strokes in, a normalised sequence out, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dstbench.errors import DataError

Stroke = NDArray[np.float64]
"""(points, 2): x, growing rightwards, and y, growing downwards, in any unit."""

Item = NDArray[np.float32]
"""(points, 3): x, y, and 1 where the pen is lifted after the point, else 0."""


Resampling = Literal["even", "published"]


def to_item(
    strokes: Sequence[ArrayLike],
    *,
    spacing: float = 0.05,
    scale: float = 10.0,
    max_points: int = 300,
    resampling: Resampling = "even",
) -> Item:
    """The normalised sequence of a drawing's strokes, after ChiroDiff (Das et al., ICLR 2023).

    The drawing's first point is moved to the origin and its farthest point scaled to distance 1;
    each stroke is cut into equal parts of its length, at most ``spacing`` long, its ends kept; then
    everything is multiplied by ``scale``. A drawing that would have more than ``max_points`` is cut
    into longer parts, so that it stays whole. A stroke without length becomes a single point.

    With ``resampling="published"`` it is done as in that paper's code instead: a stroke of length L
    gets max(2, ⌊L / spacing⌋) points, strokes of a single point are left out, and the farthest
    point is at distance ``scale`` after that.

    Raises :class:`~dstbench.errors.DataError` for a drawing without strokes or without extent,
    with coordinates that are not finite numbers, or of more strokes than ``max_points`` allow; as
    published, for one of ``max_points`` or more.
    """
    drawing = _checked(strokes)
    if resampling == "even":
        resampled = _even(_normalised(drawing), spacing, max_points)
    else:
        resampled = _published(drawing, spacing, max_points)
    points = np.concatenate(resampled) * scale
    lifted = np.zeros(len(points))
    lifted[np.cumsum([len(stroke) for stroke in resampled]) - 1] = 1
    return np.column_stack([points, lifted]).astype(np.float32)


def _even(drawing: Sequence[Stroke], spacing: float, max_points: int) -> list[Stroke]:
    lengths = [_arc_length(stroke)[-1] for stroke in drawing]
    if sum(_parts(length, spacing) + 1 for length in lengths) > max_points:
        spare = max_points - 2 * len(drawing)  # each stroke: one point more than parts, rounded up
        if spare < 1:
            raise DataError(f"{len(drawing)} strokes are too many for {max_points} points")
        spacing = max(spacing, sum(lengths) / spare)
    return [
        _resample(stroke, _parts(length, spacing))
        for stroke, length in zip(drawing, lengths, strict=True)
    ]


def _published(drawing: Sequence[Stroke], spacing: float, max_points: int) -> list[Stroke]:
    long = [stroke for stroke in drawing if len(stroke) > 1]
    if not long:
        raise DataError("no stroke has more than one point")
    resampled = [
        _resample(stroke, max(2, int(_arc_length(stroke)[-1] / spacing)) - 1)
        for stroke in _normalised(long)
    ]
    if (count := sum(map(len, resampled))) >= max_points:
        raise DataError(f"it would have {count} points; less than {max_points} are kept")
    return _normalised(resampled)


def to_strokes(item: ArrayLike) -> list[Stroke]:
    """The strokes of an item (points, 3); what is not a finite number is left out."""
    points = np.asarray(item, dtype=np.float64).reshape(-1, 3)
    points = points[np.isfinite(points).all(axis=1)]
    ends = np.flatnonzero(points[:, 2] > 0.5) + 1
    return [stroke for stroke in np.split(points[:, :2], ends) if len(stroke)]


def fit(strokes: Sequence[Stroke], size: float, margin: float) -> list[Stroke]:
    """The strokes moved to the middle of a square frame of ``size``, and scaled so that they fill
    all but ``margin`` on its sides. Strokes without extent have no scale: there is nothing to see.
    """
    if not strokes:
        return []
    points = np.concatenate(strokes)
    low, high = points.min(axis=0), points.max(axis=0)
    with np.errstate(over="ignore"):
        extent = (high - low).max()
    if not 0 < extent < math.inf:
        return []
    middle = low + (high - low) / 2
    return [size / 2 + (stroke - middle) / extent * (size - 2 * margin) for stroke in strokes]


def _checked(strokes: Sequence[ArrayLike]) -> list[Stroke]:
    try:
        drawing = [np.asarray(stroke, dtype=np.float64) for stroke in strokes]
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"a stroke is not a list of points: {error}") from error
    drawing = [stroke for stroke in drawing if stroke.size]
    if not drawing:
        raise DataError("the drawing is empty")
    if any(stroke.ndim != 2 or stroke.shape[1] != 2 for stroke in drawing):
        raise DataError("a stroke is not a list of points (x, y)")
    return drawing


def _normalised(drawing: Sequence[Stroke]) -> list[Stroke]:
    """Moved so that the first point is the origin, scaled so that the farthest is at distance 1."""
    with np.errstate(over="ignore", invalid="ignore"):
        drawing = [stroke - drawing[0][0] for stroke in drawing]
        radius = max(np.hypot(*stroke.T).max() for stroke in drawing)
    if not math.isfinite(radius):
        raise DataError("a coordinate is not a finite number, or huge")
    if radius == 0:
        raise DataError("all points of the drawing are the same")
    return [stroke / radius for stroke in drawing]


def _arc_length(stroke: Stroke) -> NDArray[np.float64]:
    """The way from the start of a stroke to each of its points."""
    steps = np.hypot(*np.diff(stroke, axis=0).T)
    return np.concatenate([[0.0], np.cumsum(steps)])


def _parts(length: float, spacing: float) -> int:
    return math.ceil(length / spacing * (1 - 1e-9))  # 1 / 0.05 is a bit more than 20, or less


def _resample(stroke: Stroke, parts: int) -> Stroke:
    """``parts + 1`` points at equal distances along the stroke, its ends among them."""
    way = _arc_length(stroke)
    at = np.linspace(0, way[-1], parts + 1)
    return np.column_stack([np.interp(at, way, stroke[:, 0]), np.interp(at, way, stroke[:, 1])])
