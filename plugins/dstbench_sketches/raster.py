"""Sketches as pictures: pixels to be scored, and SVG to be looked at."""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree import ElementTree

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from dstbench_sketches.sketch import Stroke, fit, to_strokes

OVERSAMPLING = 4
"""Each pixel is the mean of this many squared, which makes lines smooth."""

MARGIN = 0.02
"""What stays free around the lines, a fraction of the picture's side."""


def rasterise(items: Iterable[ArrayLike], size: int, line_width: float) -> NDArray[np.uint8]:
    """Pictures (N, size, size) of sketches (points, 3), real or generated: white on black.

    Lines are ``line_width`` wide, a fraction of the picture's side, with round ends. Each sketch is
    moved and scaled, its aspect kept, to fill the picture but for a small margin. Points that are
    not finite are left out; a sketch without extent gives a black picture.
    """
    pictures = [_draw(to_strokes(item), size, line_width) for item in items]
    return np.stack(pictures) if pictures else np.zeros((0, size, size), dtype=np.uint8)


def to_svg(item: ArrayLike, size: int = 128, line_width: float = 0.03) -> str:
    """A sketch (points, 3) as a standalone SVG of ``size`` by ``size`` pixels, black on nothing."""
    svg = ElementTree.Element(
        "svg",
        xmlns="http://www.w3.org/2000/svg",
        width=str(size),
        height=str(size),
        viewBox=f"0 0 {size} {size}",
    )
    lines = ElementTree.SubElement(
        svg,
        "g",
        {
            "fill": "none",
            "stroke": "black",
            "stroke-width": f"{line_width * size:g}",
            "stroke-linecap": "round",
            "stroke-linejoin": "round",
        },
    )
    for stroke in fit(to_strokes(item), size, (line_width / 2 + MARGIN) * size):
        # A path of one point is drawn only if it goes somewhere, if only to itself.
        points = stroke if len(stroke) > 1 else np.repeat(stroke, 2, axis=0)
        ElementTree.SubElement(
            lines, "path", d="M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in points)
        )
    return ElementTree.tostring(svg, encoding="unicode")


def _draw(strokes: list[Stroke], size: int, line_width: float) -> NDArray[np.uint8]:
    side = size * OVERSAMPLING
    width = max(1, round(line_width * side))
    canvas = Image.new("L", (side, side))
    pen = ImageDraw.Draw(canvas)
    for stroke in fit(strokes, side, width / 2 + MARGIN * side):
        points = list(map(tuple, stroke.tolist()))
        pen.line(points, fill=255, width=width)
        # Round ends and joints. A circle is one pixel wider than twice its radius.
        for point in points:
            pen.circle(point, (width - 1) / 2, fill=255)
    return np.asarray(canvas.reduce(OVERSAMPLING))
