"""Strokes of SVG files: where they are, which are seen, and what is no such file."""

import numpy as np
import pytest
from dstbench_sketches.svg import CURVE_POINTS, read_svg
from hypothesis import given
from hypothesis import strategies as st
from svg_files import svg

from dstbench.errors import DataError


def drawn(content: str) -> list[list[tuple[float, float]]]:
    """The ends of each stroke of a file with this content."""
    file = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 109 109">{content}</svg>'
    return [
        [tuple(point) for point in stroke[[0, -1]].round(6).tolist()]
        for stroke in read_svg(file.encode())
    ]


def test_lines_and_curves_by_hand() -> None:
    """A Bézier curve is (1-t)³P0 + 3(1-t)²t P1 + 3(1-t)t² P2 + t³P3; s mirrors the last handle."""
    curve, line = read_svg(svg('d="M0,0c0,10,10,10,10,0s10-10,10,0"', 'd="M1,2L4,6"'))
    t = np.linspace(0, 1, CURVE_POINTS)[:, None]
    first, second, third, last = np.array([(0, 0), (0, 10), (10, 10), (10, 0)])
    expected = (1 - t) ** 3 * first + 3 * (1 - t) ** 2 * t * second
    expected = expected + 3 * (1 - t) * t**2 * third + t**3 * last
    np.testing.assert_allclose(curve[: len(t)], expected, atol=1e-9)
    np.testing.assert_allclose(curve[len(t) :], [10, 0] + expected * [1, -1], atol=1e-9)
    np.testing.assert_allclose(line[[0, -1]], [(1, 2), (4, 6)])


def test_a_path_that_starts_twice_is_two_strokes() -> None:
    assert len(read_svg(svg('d="M0,0L1,1M5,5L6,6"'))) == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "XML"),
        (b"<svg", "XML"),
        (b"\xff\xfe\x00", "XML"),
        (svg('d="M0,0L1,1"')[:-20], "XML"),
        (b'<?xml version="1.0" encoding="no-such"?><svg/>', "XML"),
        (b'<svg><path d="M0,0L1,1"/></svg>', "no SVG: the first element is 'svg'"),
        (b'<html xmlns="http://www.w3.org/1999/xhtml"/>', "no SVG: the first element is"),
        (svg('d="M0,0L1,1"', 'class="no d"'), "without a line"),
        (svg('d="M0,0L1,1"', 'd=""'), "without a line"),
        (svg('d="M5,5"'), "without a line"),
        (svg('d="M0,0L"'), "cannot be read|without a line"),
        (svg('d="hello"'), "cannot be read|without a line"),
    ],
)
def test_what_is_no_character_is_refused(content, reason) -> None:
    with pytest.raises(DataError, match=reason):
        read_svg(content)


def test_entities_are_not_expanded() -> None:
    bomb = '<!DOCTYPE svg [<!ENTITY a "M0,0L1,1"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    with pytest.raises(DataError, match="XML"):
        read_svg(svg('d="&b;"', head=bomb))
    outside = '<!DOCTYPE svg [<!ENTITY file SYSTEM "file:///etc/hostname">]>'
    with pytest.raises(DataError, match="XML"):
        read_svg(svg('d="&file;"', head=outside))


@given(st.binary(max_size=200) | st.text("MmLlCcSsAaZzQqHhVv0123456789.,-e ", max_size=40))
def test_nonsense_is_read_or_refused(nonsense) -> None:
    content = nonsense if isinstance(nonsense, bytes) else svg(f'd="{nonsense}"')
    try:
        strokes = read_svg(content)
    except DataError:
        return
    assert all(stroke.ndim == 2 and stroke.shape[1] == 2 for stroke in strokes)


LINE = '<path d="M1,2L3,2"/>'


@pytest.mark.parametrize(
    ("transform", "ends"),
    [
        ("", [(1, 2), (3, 2)]),
        ("translate(10)", [(11, 2), (13, 2)]),
        ("translate(10, 20)", [(11, 22), (13, 22)]),
        ("translate(10 -20)", [(11, -18), (13, -18)]),
        ("scale(2)", [(2, 4), (6, 4)]),
        ("scale(2,3)", [(2, 6), (6, 6)]),
        ("scale(-1,1)", [(-1, 2), (-3, 2)]),
        ("rotate(90)", [(-2, 1), (-2, 3)]),  # clockwise, as y grows downwards
        ("rotate(180, 1, 2)", [(1, 2), (-1, 2)]),
        ("matrix(1 2 3 4 5 6)", [(12, 16), (14, 20)]),
        ("skewX(45)", [(3, 2), (5, 2)]),
        ("skewY(45)", [(1, 3), (3, 5)]),
        ("translate(10,0) scale(2)", [(12, 4), (16, 4)]),
        ("scale(2),translate(10,0)", [(22, 4), (26, 4)]),
        (" translate( 1e1 , .5 ) ", [(11, 2.5), (13, 2.5)]),
    ],
)
def test_transforms(transform: str, ends: list[tuple[float, float]]) -> None:
    assert drawn(f'<g transform="{transform}">{LINE}</g>') == [ends]
    assert drawn(f'<path transform="{transform}" d="M1,2L3,2"/>') == [ends]


def test_transforms_of_groups_within_groups() -> None:
    inner = f'<g transform="scale(2)">{LINE}<g transform="translate(0,5)">{LINE}</g></g>{LINE}'
    assert drawn(f'<g transform="translate(10,0)">{inner}</g>{LINE}') == [
        [(12, 4), (16, 4)],
        [(12, 14), (16, 14)],
        [(11, 2), (13, 2)],
        [(1, 2), (3, 2)],
    ]


def test_curves_are_moved_as_a_whole() -> None:
    curve = 'd="M0,0c0,10,10,10,10,0"'
    (still,), (moved,) = read_svg(svg(curve)), read_svg(svg(f'transform="scale(2,-3)" {curve}'))
    np.testing.assert_allclose(moved, still * [2, -3])


@pytest.mark.parametrize(
    "transform", ["turn(3)", "scale()", "scale(2", "matrix(1 2 3)", "rotate(a)", "scale(1e999)"]
)
def test_a_transform_that_is_none_is_refused(transform: str) -> None:
    with pytest.raises(DataError, match="a transform that cannot be read"):
        drawn(f'<g transform="{transform}">{LINE}</g>')


@pytest.mark.parametrize(
    "hidden",
    [
        f"<defs>{LINE}</defs>",
        f"<clipPath>{LINE}</clipPath>",
        f"<defs><clipPath><g>{LINE}</g></clipPath></defs>",
        f"<symbol>{LINE}</symbol>",
        f"<mask>{LINE}</mask>",
        f"<marker>{LINE}</marker>",
        f"<pattern>{LINE}</pattern>",
        f'<g display="none">{LINE}</g>',
        f'<g style="fill:red; Display : NONE !important">{LINE}</g>',
        f'<g display="none"><g display="inline">{LINE}</g></g>',
        f'<g visibility="hidden">{LINE}</g>',
        f'<g style="visibility:collapse"><g>{LINE}</g></g>',
        '<path style="display:none" d=""/>',
        '<defs><use href="#a"/></defs>',
        f'<g opacity="0">{LINE}</g>',
        f'<g style="opacity: 0.0%"><g opacity="1">{LINE}</g></g>',
        f'<g stroke="none">{LINE}</g>',
        '<path stroke="red" style="stroke:transparent" d="M0,0L1,1"/>',
        '<path stroke-opacity="0" d="M0,0L1,1"/>',
        '<path stroke-width="0px" d="M0,0L1,1"/>',
        f'<x:g xmlns:x="urn:x">{LINE}</x:g>',
        "<text>1</text><title>one</title><desc/>",
    ],
)
def test_what_is_not_seen_is_no_stroke(hidden: str) -> None:
    assert drawn(f'{hidden}<path d="M0,0L9,9"/>') == [[(0, 0), (9, 9)]]


def test_within_what_is_hidden_something_may_be_visible() -> None:
    assert len(drawn(f'<g visibility="hidden">{LINE}<g visibility="visible">{LINE}</g></g>')) == 1
    assert len(drawn(f'<g stroke="none">{LINE}<g stroke="red">{LINE}</g></g>')) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (f'<symbol id="a">{LINE}</symbol><use href="#a"/>', "an element 'use', which is not read"),
        (f'<svg x="5">{LINE}</svg>', "an element 'svg', which is not read"),
        (f"<style>.a {{display: none}}</style>{LINE}", "a style sheet that hides or moves"),
        (f"<style><![CDATA[.a {{DISPLAY: none}}]]></style>{LINE}", "a style sheet that hides"),
        (f"<style>.a {{opacity: 0}}</style>{LINE}", "a style sheet that hides or moves"),
        (f"<style>.a {{stroke : none}}</style>{LINE}", "a style sheet that hides or moves"),
        (f'<style>path {{d: path("M0,0L1,1")}}</style>{LINE}', "a style sheet that hides or moves"),
        (f'<style>@import "other.css";</style>{LINE}', "a style sheet that hides or moves"),
        (f'<g style="transform: scale(2)">{LINE}</g>', "a transform in a style"),
        (f'<g transform="scale(2)" transform-origin="5 5">{LINE}</g>', "'transform-origin'"),
        (f'<g transform="translate(5px, 5%)">{LINE}</g>', "a transform that cannot be read"),
        (f"<switch>{LINE}{LINE}</switch>", "an element 'switch', which is not read"),
        (f'<line x1="0" y1="0" x2="10%" y2="5mm"/>{LINE}', "an element 'line'"),
        (f'<polyline points="0,0 1,1"/>{LINE}', "an element 'polyline'"),
        (f'<image href="x.png"/>{LINE}', "an element 'image'"),
        ('<path d="M0,0L1,1"><set attributeName="d" to="M5,5L6,6"/></path>', "an element 'set'"),
        (f'<g clip-path="url(#a)">{LINE}</g>', "an attribute 'clip-path'"),
        (f'<g style="mask: url(#a)">{LINE}</g>', "a mask in a style"),
        ('<path style="d: path(\'M0,0L1,1\')" d="M5,5L6,6"/>', "a d in a style"),
        (f'<g systemLanguage="ja">{LINE}</g>', "an attribute 'systemLanguage'"),
        ('<path d="M0,0 X1,1"/>', "'X' in it"),
    ],
)
def test_what_would_be_misread_is_refused(content: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        drawn(content)


def test_a_style_sheet_that_only_colours_is_let_pass() -> None:
    colours = "<style>path { fill: none; stroke: #000; stroke-width: 3 }</style>"
    assert drawn(f'{colours}<g style="mask: none">{LINE}</g>') == [[(1, 2), (3, 2)]]


def test_files_in_other_encodings() -> None:
    head = '<?xml version="1.0" encoding="utf-16"?>'
    file = f'{head}<svg xmlns="http://www.w3.org/2000/svg">{LINE}</svg>'
    assert len(read_svg(file.encode("utf-16"))) == 1


def test_groups_within_groups_without_end() -> None:
    assert len(drawn(f"{'<g>' * 10_000}{LINE}{'</g>' * 10_000}")) == 1
