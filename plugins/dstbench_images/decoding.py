"""Image files of every kind as pixels of one: square, upright, in colour."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dstbench.errors import DataError

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFile import ImageFile

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names of the formats that are opened, whatever a file is called: some of the others are
read by programs that are started for them."""

SUFFIXES = {
    ".bmp",
    ".gif",
    ".jfif",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".pbm",
    ".pgm",
    ".png",
    ".pnm",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
}

BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339
"""Tags of a TIFF file."""

Pixels = NDArray[np.uint8]


def decode(content: bytes, size: int, background: str, most_pixels: float) -> Pixels:
    """The square in the middle of an image, uint8 (3, size, size); of an animation, its first.

    It is turned as its EXIF data say, put on the background (a colour) where it is transparent, and
    resized (bicubic, antialiased) last. Greys of 16 bits are scaled by their range. Integers of 32
    bits are scaled by the least range of 8, 16 or 32 bits that holds them all, floating-point
    numbers by that of 0…1 or 0…255.

    Raises :class:`~dstbench.errors.DataError` for an image of more pixels or of other numbers than
    that, and any exception for what cannot be decoded.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not content:
        raise DataError("the file is empty")
    try:
        with _quiet_pillow(), Image.open(BytesIO(content), formats=FORMATS) as file:
            if file.width * file.height > most_pixels:
                raise DataError(
                    f"{file.width}×{file.height} pixels are more than max_megapixels allows"
                )
            greys = _greys(file)
            _match_transparency(file)
            ImageOps.exif_transpose(file, in_place=True)
            picture = _of_bytes(file, greys) if greys else file
            side = min(picture.size)
            left, top = (picture.width - side) // 2, (picture.height - side) // 2
            square = picture.crop((left, top, left + side, top + side))
    except UnidentifiedImageError as error:
        known = ", ".join(FORMATS)
        raise DataError(f"cannot identify image file; what is read is {known}") from error
    coloured = _in_colour(square, background)
    return np.asarray(coloured.resize((size, size), Image.Resampling.BICUBIC)).transpose(2, 0, 1)


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Pillow without its warnings, and without its own limit on pixels, which is a global one."""
    from PIL import Image

    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


class _Greys(NamedTuple):
    """What the numbers of a grey image of more than 8 bits mean."""

    whites: tuple[int, ...]
    """What white may be; it is the first of them that no number is larger than."""
    inverted: bool = False


def _greys(file: ImageFile) -> _Greys | None:
    """None for an image of 8 bits or less."""
    tags = getattr(file, "tag_v2", {})  # of a TIFF file: others have 16 bits
    bits, signed = tags.get(BITS, (16,))[0], tags.get(SAMPLE_FORMAT, (1,))[0] == 2
    if signed and bits <= 8:
        raise DataError(f"signed numbers of {bits} bits, which are not read")
    if file.mode == "F":
        return _Greys((1, 255))
    if file.mode != "I" and not file.mode.startswith("I;16"):
        return None
    white = 2 ** (bits - signed) - 1
    return _Greys((255, 65535, white) if bits > 16 else (white,), tags.get(PHOTOMETRIC) == 0)


def _of_bytes(picture: Image.Image, greys: _Greys) -> Image.Image:
    """A grey image with 8 bits, and transparent where it was so."""
    from PIL import Image

    numbers = np.asarray(picture)
    if greys.whites[-1] == 2**32 - 1:
        numbers = numbers.view(np.uint32)
    low, high = numbers.min(), numbers.max()
    white = next((white for white in greys.whites if 0 <= low <= high <= white), None)
    if white is None:
        ranges = " or ".join(f"0…{white}" for white in greys.whites)
        raise DataError(f"greys from {low:g} to {high:g}, where {ranges} would be right")
    scaled = np.rint(numbers.astype(np.float32) * np.float32(255 / white)).astype(np.uint8)
    grey = Image.fromarray(255 - scaled if greys.inverted else scaled)
    clear = picture.info.get("transparency")
    if clear is None:
        return grey
    return Image.merge("LA", (grey, Image.fromarray(np.uint8(255) * (numbers != clear))))


def _match_transparency(file: ImageFile) -> None:
    """Let the colour that is transparent have as many bits as Pillow's pixels.

    A PNG file says it in its own bits, where Pillow makes 8 of 2, 4 or 48.
    """
    clear, raw = file.info.get("transparency"), file.tile[0][3] if file.format == "PNG" else None
    if clear is not None and raw in ("L;2", "L;4"):
        file.info["transparency"] = clear * (85 if raw == "L;2" else 17)
    if clear is not None and raw == "RGB;16B":
        file.info["transparency"] = tuple(part >> 8 for part in clear)


def _in_colour(picture: Image.Image, background: str) -> Image.Image:
    """An image of 8 bits per channel in RGB, on the background where it is transparent."""
    from PIL import Image

    if not picture.has_transparency_data:
        return picture.convert("RGB")
    opaque = Image.new("RGBA", picture.size, background)
    opaque.alpha_composite(picture if picture.mode == "RGBA" else picture.convert("RGBA"))
    return opaque.convert("RGB")
