"""A picture of lines as the strokes of a pen: threshold, thin, follow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from dstbench_sketches.sketch import Stroke

ENLARGEMENT = 8
"""Thinning works on whole pixels: enough of them for each pixel of the picture."""

FRAME = 1
"""Dark pixels that are put around a picture, so that lines at its edge have two sides."""

SPUR = 0.8
"""Side branches up to this long (in pixels of the picture) come from thinning, not from a pen."""

BRIDGE = 1.5
"""Where lines cross, thinning leaves two junctions up to this far apart: taken for one."""

REACH = 1.0
"""How far from a junction the direction of a line is measured."""

SMOOTHING = 0.35
"""Standard deviation, along the stroke, of what smooths the steps of whole pixels away."""

Pixel = tuple[int, int]


def trace(picture: NDArray[np.floating]) -> list[Stroke]:
    """The strokes (points, 2) of light lines on a dark picture (H, W) in [0, 1].

    The picture is enlarged, sharpened, so that faint lines last and small holes stay open, cut at
    one half and thinned (Zhang & Suen, 1984). Lines that go on straight across a junction are one
    stroke. A stroke starts at its upper left end; a closed one at its top, leftwards; strokes come
    in the order of their starts, the upper left one first. Coordinates are in pixels of the
    picture, x rightwards and y downwards; a picture without lines has no strokes.
    """
    skeleton = _skeleton(picture)
    _remove_spurs(skeleton)
    strokes = [
        (_smooth(line) + 0.5) / ENLARGEMENT - FRAME for line in _lines(skeleton) if len(line) > 1
    ]
    longest = max((_length(stroke) for stroke in strokes), default=0.0)
    kept = [stroke for stroke in strokes if _length(stroke) > min(SPUR, longest / 2)]
    in_direction = [_from_its_start(stroke) for stroke in kept]
    return sorted(in_direction, key=lambda stroke: _writing_order(stroke[0]))


def _skeleton(picture: NDArray[np.floating]) -> nx.Graph[Pixel]:
    """The thinned lines: pixels (row, column) of the enlarged picture, linked to their neighbours,
    to a diagonal one only where no straight way leads to it."""
    pixels = _thin(picture)
    skeleton: nx.Graph[Pixel] = nx.Graph()
    skeleton.add_nodes_from(sorted(pixels))
    for row, column in skeleton:
        beside, below = (row, column + 1), (row + 1, column)
        skeleton.add_edges_from(((row, column), pixel) for pixel in {beside, below} & pixels)
        if (row + 1, column + 1) in pixels and not {beside, below} & pixels:
            skeleton.add_edge((row, column), (row + 1, column + 1))
        if (row + 1, column - 1) in pixels and not {(row, column - 1), below} & pixels:
            skeleton.add_edge((row, column), (row + 1, column - 1))
    return skeleton


def _thin(picture: NDArray[np.floating]) -> set[Pixel]:
    from skimage.filters import unsharp_mask
    from skimage.morphology import skeletonize
    from skimage.transform import resize

    framed = np.pad(np.asarray(picture, dtype=np.float64), FRAME)
    shape = [side * ENLARGEMENT for side in framed.shape]
    large = resize(framed, shape, order=3, mode="edge")
    sharp = unsharp_mask(large, radius=1.2 * ENLARGEMENT, amount=1.5, preserve_range=True)
    rows, columns = np.nonzero(skeletonize(sharp > 0.5))
    return set(zip(rows.tolist(), columns.tolist(), strict=True))


@dataclass(frozen=True)
class _Branch:
    """A chain of pixels, and the junction it meets at its first and its last (``None``: free)."""

    pixels: list[Pixel]
    ends: tuple[int | None, int | None]


@dataclass(frozen=True)
class _Graph:
    branches: list[_Branch]
    junctions: list[NDArray[np.float64]]
    """Middle (row, column) of each junction."""


def _graph(skeleton: nx.Graph[Pixel]) -> _Graph:
    """The skeleton cut at its junctions: at pixels with more than two neighbours."""
    crowded = [pixel for pixel in skeleton if len(skeleton.adj[pixel]) > 2]
    clusters = list(nx.connected_components(skeleton.subgraph(crowded)))
    cluster_of = {pixel: number for number, cluster in enumerate(clusters) for pixel in cluster}
    chains = skeleton.copy()
    chains.remove_nodes_from(crowded)
    branches = [
        _branch(pixels, chains, skeleton, cluster_of) for pixels in nx.connected_components(chains)
    ]
    branches.sort(key=lambda branch: branch.pixels)
    return _Graph(branches, [np.mean(sorted(cluster), axis=0) for cluster in clusters])


def _branch(
    among: set[Pixel],
    chains: nx.Graph[Pixel],
    skeleton: nx.Graph[Pixel],
    cluster_of: dict[Pixel, int],
) -> _Branch:
    tips = sorted(pixel for pixel in among if len(chains.adj[pixel]) < 2)
    pixels = list(nx.dfs_preorder_nodes(chains, tips[0] if tips else min(among)))
    if not tips:  # a ring, without any junction
        return _Branch([*pixels, pixels[0]], (None, None))
    met = [
        [cluster_of[pixel] for pixel in skeleton.adj[tip] if pixel in cluster_of]
        for tip in (pixels[0], pixels[-1])
    ]
    if len(pixels) == 1:  # both its first and its last
        met = [met[0][:1], met[0][1:]]
    first, last = (junctions[0] if junctions else None for junctions in met)
    return _Branch(pixels, (first, last))


def _remove_spurs(skeleton: nx.Graph[Pixel]) -> None:
    """Takes short side branches off the skeleton, the shortest first."""
    while True:
        spurs = [
            branch.pixels
            for branch in _graph(skeleton).branches
            if len(branch.pixels) <= SPUR * ENLARGEMENT
            and (branch.ends[0] is None) != (branch.ends[1] is None)
        ]
        if not spurs:
            return
        skeleton.remove_nodes_from(min(spurs, key=len))


def _lines(skeleton: nx.Graph[Pixel]) -> list[Stroke]:
    """The lines (points, 2), as (x, y) in pixels of the skeleton, that a pen would draw."""
    graph = _bridged(_graph(skeleton))
    onwards = _onwards(graph)
    ends = [(number, side) for number in range(len(graph.branches)) for side in (0, 1)]
    drawn: set[int] = set()
    lines = []
    # First what has a beginning, then what closes on itself.
    for end in [*(end for end in ends if end not in onwards), *ends]:
        if end[0] not in drawn:
            lines.append(_walk(graph, onwards, end, drawn))
    return lines


End = tuple[int, int]
"""The first (0) or last (1) pixel of a branch, which has a number."""


def _walk(graph: _Graph, onwards: dict[End, End], start: End, drawn: set[int]) -> Stroke:
    points: list[Iterable[float]] = []
    end: End | None = start
    while end is not None and end[0] not in drawn:
        number, side = end
        drawn.add(number)
        branch = graph.branches[number]
        way = branch.pixels if side == 0 else branch.pixels[::-1]
        before, after = branch.ends if side == 0 else branch.ends[::-1]
        if before is not None and not points:
            points.append(graph.junctions[before])
        points.extend(way)
        if after is not None:
            points.append(graph.junctions[after])
        end = onwards.get((number, 1 - side))
    return np.array([(column, row) for row, column in points], dtype=np.float64)


def _bridged(graph: _Graph) -> _Graph:
    """The graph with junctions that a short branch links made one."""
    name = list(range(len(graph.junctions)))
    kept = []
    for branch in sorted(graph.branches, key=lambda branch: len(branch.pixels)):
        first, last = (None if end is None else name[end] for end in branch.ends)
        short = len(branch.pixels) <= BRIDGE * ENLARGEMENT
        if short and first is not None and last is not None and first != last:
            name = [first if other == last else other for other in name]
        else:
            kept.append(branch)
    members = {new: [old for old, other in enumerate(name) if other == new] for new in name}
    middles = [np.mean([graph.junctions[old] for old in members[new]], axis=0) for new in name]
    renamed = [
        _Branch(
            branch.pixels,
            (_renamed(branch.ends[0], name), _renamed(branch.ends[1], name)),
        )
        for branch in kept
    ]
    return _Graph(renamed, middles)


def _renamed(end: int | None, name: list[int]) -> int | None:
    return None if end is None else name[end]


def _onwards(graph: _Graph) -> dict[End, End]:
    """Which branch's end goes on straightest from which, at every junction: each is taken once, and
    none that would turn back by more than a right angle."""
    ends_at: dict[int, list[End]] = {}
    for number, branch in enumerate(graph.branches):
        for side in (0, 1):
            junction = branch.ends[side]
            if junction is not None:
                ends_at.setdefault(junction, []).append((number, side))
    onwards: dict[End, End] = {}
    for junction, ends in ends_at.items():
        away = {end: _direction(graph, end, junction) for end in ends}
        pairs = [(away[a] @ away[b], a, b) for a, b in combinations(ends, 2) if a[0] != b[0]]
        for cosine, a, b in sorted(pairs, key=lambda pair: pair[0]):
            if cosine < 0 and a not in onwards and b not in onwards:
                onwards[a], onwards[b] = b, a
    return onwards


def _direction(graph: _Graph, end: End, junction: int) -> NDArray[np.float64]:
    """The unit vector in which a branch leaves a junction."""
    number, side = end
    pixels = graph.branches[number].pixels
    reach = min(len(pixels), round(REACH * ENLARGEMENT)) - 1
    away = np.array(pixels[reach if side == 0 else -1 - reach]) - graph.junctions[junction]
    unit: NDArray[np.float64] = away / max(np.hypot(*away), 1e-9)
    return unit


def _smooth(line: Stroke) -> Stroke:
    """Gaussian smoothing along the line; its ends stay, a closed one's too, but for its corner."""
    from scipy.ndimage import gaussian_filter1d

    sigma = SMOOTHING * ENLARGEMENT
    if _closed(line):
        ring = gaussian_filter1d(line[:-1], sigma, axis=0, mode="wrap")
        return np.concatenate([ring, ring[:1]])
    # Mirrored through its end points, the line goes on straight: smoothing leaves them in place.
    around = min(len(line) - 1, round(4 * sigma))
    before = 2 * line[0] - line[around:0:-1]
    after = 2 * line[-1] - line[-2 : -2 - around : -1]
    smooth: Stroke = gaussian_filter1d(np.concatenate([before, line, after]), sigma, axis=0)
    return smooth[around : around + len(line)]


def _closed(line: Stroke) -> bool:
    return len(line) > 3 and bool((line[0] == line[-1]).all())


def _from_its_start(stroke: Stroke) -> Stroke:
    if _closed(stroke):
        ring = np.roll(stroke[:-1], -int(stroke[:, 1].argmin()), axis=0)
        ring = np.concatenate([ring, ring[:1]])
        quarter = len(ring) // 4
        return ring if ring[quarter, 0] < ring[-1 - quarter, 0] else ring[::-1]
    return min(stroke, stroke[::-1], key=lambda way: _writing_order(way[0]))


def _writing_order(start: NDArray[np.float64]) -> float:
    """Pens start at the top, and at the same height on the left."""
    x, y = start
    return float(x + 2 * y)


def _length(stroke: Stroke) -> float:
    return float(np.hypot(*np.diff(stroke, axis=0).T).sum())
