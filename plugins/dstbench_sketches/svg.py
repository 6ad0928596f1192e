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

NOT_READ = {
    f"{SVG}{name}"
    for name in (
        *("animate", "animateMotion", "animateTransform", "set"),
        *("circle", "ellipse", "line", "polygon", "polyline", "rect"),
        *("foreignObject", "image", "svg", "switch", "use"),
    )
}
"""Elements that draw, but no paths or not what lies in them; the first of all is an exception."""

_MISLEADING = {"clip-path", "filter", "mask", "transform-origin"}
ATTRIBUTES_NOT_READ = _MISLEADING | {"requiredExtensions", "requiredFeatures", "systemLanguage"}
STYLES_NOT_READ = _MISLEADING | {"d", "rotate", "scale", "transform", "translate"}
"""Properties that hide, move or replace what is drawn."""

INHERITED = ("stroke", "stroke-opacity", "stroke-width", "visibility")

_HIDES_OR_MOVES = re.compile(
    r"@import|clip|display|filter|mask|opacity|rotate|scale|stroke\s*:\s*(none|transparent)"
    r"|transform|translate|visibility|\bd\s*:",
    re.IGNORECASE,
)

_NOT_OF_A_PATH = re.compile(r"[^MmZzLlHhVvCcSsQqTtAaEe0-9+\-.,\s]")

Transform = NDArray[np.float64]
"""(3, 3), for points (x, y, 1)."""


def read_svg(svg: bytes) -> list[Stroke]:
    """The strokes that can be seen: every path, where the transforms around it put it.

    A path without a stroke's colour is seen, too; one that says it has none is not.

    Raises:
        DataError: for what is not such a file; entities that a file defines are not expanded, but
            refused, and so is all that is drawn otherwise than by paths, or hidden, moved or
            replaced otherwise than by transforms, display, visibility, opacity and stroke.
        PluginError: if the package svgpathtools is not installed.
    """
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        root = fromstring(svg)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise DataError(f"not the XML of a character: {error}") from error
    if root.tag != f"{SVG}svg":
        raise DataError(f"no SVG: the first element is '{root.tag:.40}', in no namespace of SVG's")
    return [
        _moved(stroke, transform)
        for path, transform in _visible_paths(root)
        for stroke in _strokes(path.get("d", ""))
    ]


def _visible_paths(root: Element) -> Iterator[tuple[Element, Transform]]:
    """The paths in order, each with the product of all transforms around it."""
    to_come: list[tuple[Element, Transform, dict[str, str]]] = [(root, np.identity(3), {})]
    while to_come:
        element, transform, inherited = to_come.pop()
        style = _style(element)
        said = {name: value.strip().lower() for name, value in element.items()} | style
        if (
            element.tag in NOT_DRAWN
            or not element.tag.startswith(SVG)
            or said.get("display") == "none"
            or _is_zero(said.get("opacity", ""))
        ):
            continue
        _check(element, style, is_root=element is root)
        transform = transform @ _transform(element.get("transform", ""))
        inherited = inherited | {
            name: said[name] for name in INHERITED if said.get(name, "inherit") != "inherit"
        }
        if element.tag == f"{SVG}path" and _is_seen(inherited):
            yield element, transform
        to_come.extend((child, transform, inherited) for child in reversed(element))


def _check(element: Element, style: dict[str, str], is_root: bool) -> None:
    """Raise :class:`DataError` for what would be misread."""
    if element.tag in NOT_READ and not is_root:
        raise DataError(f"an element '{element.tag.removeprefix(SVG)}', which is not read")
    if element.tag == f"{SVG}style" and _HIDES_OR_MOVES.search(element.text or ""):
        raise DataError("a style sheet that hides or moves something, which is not read")
    for name in sorted(STYLES_NOT_READ & style.keys()):
        if style[name] != "none":
            raise DataError(f"a {name} in a style, which is not read")
    for name in sorted(ATTRIBUTES_NOT_READ & {*element.keys()}):
        if element.get(name) != "none":
            raise DataError(f"an attribute '{name}', which is not read")


def _is_seen(properties: dict[str, str]) -> bool:
    return not (
        properties.get("visibility") in ("hidden", "collapse")
        or properties.get("stroke") in ("none", "transparent")
        or _is_zero(properties.get("stroke-opacity", ""))
        or _is_zero(properties.get("stroke-width", ""))
    )


def _is_zero(quantity: str) -> bool:
    """Whether a quantity is zero, in whatever unit: ``0``, ``0%``, ``0.0px``."""
    try:
        return float(quantity.rstrip("%abcdefghijklmnopqrstuvwxyz")) == 0
    except ValueError:
        return False


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
    if wrong := _NOT_OF_A_PATH.search(d):
        raise DataError(f"a path that cannot be read, d={d[:40]!r}: {wrong[0]!r} in it")
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
