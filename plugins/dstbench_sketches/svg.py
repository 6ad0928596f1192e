"""The paths of an SVG file as strokes."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from numpy.typing import NDArray

from dstbench.errors import DataError
from dstbench.plugins import require
from dstbench_sketches.sketch import Stroke

CURVE_POINTS = 16
"""Points that stand for each Bézier curve of a path, before strokes are resampled."""

SVG = "{http://www.w3.org/2000/svg}"

NOT_DRAWN = {f"{SVG}{name}" for name in ("clipPath", "defs", "marker", "mask", "pattern", "symbol")}
"""Elements whose content is there for others to refer to."""

NOT_READ = {f"{SVG}{name}" for name in ("svg", "use")}
"""Elements that draw what is elsewhere, or in a frame of their own; but for the first of all."""

_HIDES_OR_MOVES = re.compile("display|visibility|transform")

Transform = NDArray[np.float64]
"""(3, 3), for points (x, y, 1)."""


def read_svg(svg: bytes) -> list[Stroke]:
    """The strokes that can be seen: every path, where the transforms around it put it.

    Raises:
        DataError: for what is not such a file; entities that a file defines are not expanded, but
            refused, and so are ``use``, ``svg`` within ``svg``, and styles that hide or move.
        PluginError: if the package svgpathtools is not installed.
    """
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        root = fromstring(svg)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise DataError(f"not the XML of a character: {error}") from error
    return [
        _moved(stroke, transform)
        for path, transform in _visible_paths(root)
        for stroke in _strokes(path.get("d", ""))
    ]


def _visible_paths(root: Element) -> Iterator[tuple[Element, Transform]]:
    """The paths in order, each with the product of all transforms around it."""
    to_come = [(root, np.identity(3), True)]
    while to_come:
        element, transform, visible = to_come.pop()
        if element.tag in NOT_DRAWN or _property(element, "display") == "none":
            continue
        if element.tag in NOT_READ and element is not root:
            raise DataError(f"an element '{element.tag.removeprefix(SVG)}', which is not read")
        if element.tag == f"{SVG}style" and _HIDES_OR_MOVES.search(element.text or ""):
            raise DataError("a style sheet that hides or moves something, which is not read")
        if "transform" in _style(element):
            raise DataError("a transform in a style, which is not read")
        transform = transform @ _transform(element.get("transform", ""))
        visible = {"visible": True, "hidden": False, "collapse": False}.get(
            _property(element, "visibility"), visible
        )
        if element.tag == f"{SVG}path" and visible:
            yield element, transform
        to_come.extend((child, transform, visible) for child in reversed(element))


def _property(element: Element, name: str) -> str:
    return _style(element).get(name, element.get(name, "")).strip().lower()


def _style(element: Element) -> dict[str, str]:
    declarations = (each.partition(":") for each in element.get("style", "").lower().split(";"))
    return {name.strip(): value.partition("!")[0].strip() for name, _, value in declarations}


def _transform(text: str) -> Transform:
    if not text.strip():
        return np.identity(3)
    svgpathtools = _svgpathtools()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what it skips otherwise
            transform: Transform = svgpathtools.parser.parse_transform(text)
    except Exception as error:  # the parser's, of any kind, where the text is nonsense
        raise DataError(f"a transform that cannot be read, {text[:40]!r}: {error}") from error
    return transform


def _moved(stroke: Stroke, transform: Transform) -> Stroke:
    return stroke @ transform[:2, :2].T + transform[:2, 2]


def _strokes(d: str) -> Iterator[Stroke]:
    svgpathtools = _svgpathtools()
    try:
        path = svgpathtools.parse_path(d)
        strokes = [_points(part) for part in path.continuous_subpaths()] if len(path) else []
    except Exception as error:  # the parser's, of any kind, where the text is nonsense
        raise DataError(f"a path that cannot be read, d={d[:40]!r}: {error}") from error
    if not strokes:
        raise DataError(f"a path without a line, d={d[:40]!r}")
    yield from strokes


def _points(path: Any) -> Stroke:
    at = np.linspace(0, 1, CURVE_POINTS)
    way = np.array([[segment.point(t) for t in at] for segment in path]).ravel()
    return np.column_stack([way.real, way.imag])


def _svgpathtools() -> Any:
    return require("svgpathtools", "dataset 'kanjivg'", "dstbench[kanjivg]")
