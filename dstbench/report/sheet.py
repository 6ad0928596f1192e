"""Samples side by side: one line per row of the leaderboard, one column per noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from matplotlib.font_manager import findfont
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dstbench.errors import StoreError
from dstbench.report.leaderboard import Table

COLUMNS = 12
TILE = 64
"""Height in pixels that smaller images are enlarged to, as far as whole multiples go."""
GAP = 4
MARGIN = 16
TEXT, HEADING = 15, 20


def sample_sheet(
    tables: Sequence[Table],
    samples: Mapping[str, NDArray[np.uint8]],
    reals: Mapping[str, NDArray[np.uint8]],
    caption: str = "samples of a column start from the same noise",
) -> Image.Image | None:
    """Samples of each table's first seed under its heading, real images above them where there are
    some; ``None`` if there are no samples.

    Both hold uint8 images (n, H, W, C), C = 1 or 3, by cell id.

    Raises:
        StoreError: samples of another form.
    """
    blocks = [block for table in tables if (block := _block(table, samples, reals, caption))]
    if not blocks:
        return None
    width = max(block.width for block in blocks) + 2 * MARGIN
    sheet = _blank(width, sum(block.height + MARGIN for block in blocks) + MARGIN)
    y = MARGIN
    for block in blocks:
        sheet.paste(block, (MARGIN, y))
        y += block.height + MARGIN
    return sheet


def _block(
    table: Table,
    samples: Mapping[str, NDArray[np.uint8]],
    reals: Mapping[str, NDArray[np.uint8]],
    caption: str,
) -> Image.Image | None:
    """A heading and, for real images and each row of the table, a label and a strip."""
    seeds = [record.cell.seed for record in table.records if record.cell.id in samples]
    if not seeds:
        return None
    # Cells of a table are scored against the same real images.
    known = [record.cell.id for record in table.records if record.cell.id in reals][:1]
    strips = [("real images", strip_of(reals[name], name)) for name in known]
    strips += [
        (row_label(row.method, row.sparsity), strip_of(samples[record.cell.id], record.cell.id))
        for row in table.rows
        for record in row.records
        if record.cell.seed == seeds[0] and record.cell.id in samples
    ]
    heading = f"{table.heading}, seed {seeds[0]}: {caption}"
    left = max(_width(label, TEXT) for label, _ in strips) + 3 * GAP
    top = HEADING + 3 * GAP
    width = max(left + max(strip.width for _, strip in strips), _width(heading, HEADING))
    block = _blank(width, top + sum(strip.height + GAP for _, strip in strips))
    draw = ImageDraw.Draw(block)
    draw.text((0, 0), heading, "black", _font(HEADING))
    y = top
    for label, strip in strips:
        draw.text((0, y + strip.height / 2), label, "black", _font(TEXT), anchor="lm")
        block.paste(strip, (left, y))
        y += strip.height + GAP
    return block


def row_label(method: str, sparsity: float) -> str:
    return f"{method}, S = {sparsity:g}" if sparsity else method


def strip_of(images: NDArray[np.uint8], cell: str) -> Image.Image:
    """The first images side by side, small ones enlarged without smoothing."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise StoreError(
            f"samples of {cell} are {images.dtype} of shape {images.shape}, "
            "but should be uint8 of shape (n, height, width, 1 or 3)"
        )
    _, height, width, _ = images.shape
    scale = max(1, TILE // max(height, width, 1))
    step = width * scale + GAP
    shown = images[:COLUMNS]
    strip = _blank(max(step * len(shown) - GAP, 1), height * scale)
    for i, image in enumerate(shown):
        tile = Image.fromarray(np.broadcast_to(image, (height, width, 3)).copy())
        enlarged = tile.resize((width * scale, height * scale), Image.Resampling.NEAREST)
        strip.paste(enlarged, (i * step, 0))
    return strip


def _blank(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), "white")


def _width(text: str, size: int) -> int:
    return round(_font(size).getlength(text))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # Matplotlib's font knows more scripts than Pillow's own.
    return ImageFont.truetype(findfont("DejaVu Sans"), size)
