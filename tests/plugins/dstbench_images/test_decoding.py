"""Image files of every format and mode, and what only looks like one."""

import os
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from dstbench_images.decoding import decode
from PIL import Image, TiffImagePlugin

from dstbench.errors import DataError

SIZE = 8
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def by_outcome(value: object) -> str | None:
    """Names of cases by what is expected, as their bytes are none."""
    return "file" if isinstance(value, bytes) else str(value)


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def decoded(content: bytes, background: str = "white", most: float = 1e6) -> np.ndarray:
    """(SIZE, SIZE, 3)"""
    return decode(content, SIZE, background, most).transpose(1, 2, 0)


def colour(content: bytes, **settings: object) -> tuple[int, ...]:
    """That of an image of one colour."""
    pixels = decoded(content, **settings)
    assert (pixels == pixels[0, 0]).all()
    return tuple(pixels[0, 0].tolist())


def png(bits: int, kind: int, row: bytes, **chunks: bytes) -> bytes:
    """A file of SIZE equal rows, as Pillow writes none: of any depth, with any chunks."""
    header = struct.pack(">IIBBBBB", SIZE, SIZE, bits, kind, 0, 0, 0)
    parts = {"IHDR": header, **chunks, "IDAT": zlib.compress((b"\0" + row) * SIZE), "IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data))
        + name.encode()
        + data
        + struct.pack(">I", zlib.crc32(name.encode() + data))
        for name, data in parts.items()
    )


def tiff(numbers: np.ndarray, **tags: int) -> bytes:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        info[int(tag.removeprefix("tag"))] = value
    return saved(Image.fromarray(numbers), "tiff", tiffinfo=info)


def of_numbers(value: float, dtype: str) -> np.ndarray:
    return np.full((SIZE, SIZE), value, dtype)


@pytest.mark.parametrize(
    ("content", "grey"),
    [
        (saved(Image.fromarray(of_numbers(65535, "uint16")), "png"), 255),
        (saved(Image.fromarray(of_numbers(128 * 257, "uint16")), "png"), 128),
        (saved(Image.fromarray(of_numbers(255, "uint16")), "png"), 1),
        (saved(Image.fromarray(of_numbers(200 * 257, "uint16")), "ppm"), 200),
        (tiff(of_numbers(100 * 257, "uint16")), 100),
        (tiff(of_numbers(100 * 257, "uint16"), tag262=0), 155),  # white is 0
        (saved(Image.frombytes("I;16B", (8, 8), b"\x80\x80" * 64), "tiff"), 128),
        (tiff(of_numbers(2**31 - 1, "int32")), 255),
        (tiff(of_numbers(2**30, "int32")), 128),
        (tiff(of_numbers(128 * 257, "int32")), 128),  # of 16 bits, in 32
        (tiff(of_numbers(99, "int32")), 99),
        (tiff(of_numbers(0.5, "float32")), 128),
        (tiff(of_numbers(1, "float32")), 255),
        (tiff(of_numbers(77, "float32")), 77),
        (tiff(of_numbers(0, "float32")), 0),
    ],
    ids=by_outcome,
)
def test_greys_of_many_bits_are_scaled(content: bytes, grey: int) -> None:
    assert colour(content) == (grey,) * 3


def test_32_bits_without_a_sign() -> None:
    signed = tiff(of_numbers(-1, "int32"))
    entry = struct.pack("<HHIHH", 339, 3, 1, 2, 0)
    assert entry in signed
    assert colour(signed.replace(entry, struct.pack("<HHIHH", 339, 3, 1, 1, 0))) == WHITE
    with pytest.raises(DataError, match="greys from -1 to -1"):
        decoded(signed)


def test_8_bits_with_a_sign_are_refused() -> None:
    with pytest.raises(DataError, match="signed numbers of 8 bits, which are not read"):
        decoded(tiff(of_numbers(100, "uint8"), tag339=2))


def test_a_range_is_that_of_the_whole_image_and_not_of_its_middle() -> None:
    wide = np.zeros((8, 24), "float32")
    wide[:, 8:16], wide[:, 0] = 1, 255
    assert colour(tiff(wide)) == (1, 1, 1)


@pytest.mark.parametrize("value", [-1, 256, 1e9, np.nan, np.inf])
def test_floats_of_no_known_range_are_refused(value: float) -> None:
    with pytest.raises(DataError, match=r"greys from .* where 0…1 or 0…255 would be right"):
        decoded(tiff(of_numbers(value, "float32")))


def of_palette(index: int) -> Image.Image:
    """All in one of two colours: red or green."""
    image = Image.new("P", (SIZE, SIZE), index)
    image.putpalette([200, 0, 0, 0, 200, 0])
    return image


def with_alpha(mode: str, colours: tuple[int, ...], alpha: int) -> Image.Image:
    return Image.new(mode, (SIZE, SIZE), (*colours, alpha))


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        (saved(with_alpha("RGBA", (9, 8, 7), 0), "png"), WHITE),
        (saved(with_alpha("RGBA", (9, 8, 7), 255), "png"), (9, 8, 7)),
        (saved(with_alpha("RGBA", (0, 0, 0), 51), "png"), (204, 204, 204)),
        (saved(with_alpha("RGBA", (9, 8, 7), 0), "webp", lossless=True, exact=True), WHITE),
        (saved(with_alpha("RGBA", (9, 8, 7), 0), "tiff"), WHITE),
        (saved(with_alpha("LA", (9,), 0), "png"), WHITE),
        (saved(with_alpha("LA", (9,), 255), "png"), (9, 9, 9)),
        (png(16, 4, b"\x50\x50\xff\xff" * SIZE), (80, 80, 80)),
        (png(16, 4, b"\x50\x50\0\0" * SIZE), WHITE),
        (saved(of_palette(1), "png", transparency=1), WHITE),
        (saved(of_palette(1), "png", transparency=0), (0, 200, 0)),
        (saved(of_palette(1), "png", transparency=b"\xff\x00"), WHITE),
        (saved(of_palette(1), "png", transparency=b"\x00\x33"), (204, 244, 204)),
        (saved(of_palette(1), "gif", transparency=1), WHITE),
        (saved(Image.new("L", (8, 8), 40), "png", transparency=40), WHITE),
        (saved(Image.new("L", (8, 8), 41), "png", transparency=40), (41, 41, 41)),
        (saved(Image.new("RGB", (8, 8), (1, 2, 3)), "png", transparency=(1, 2, 3)), WHITE),
        (saved(Image.new("1", (8, 8), 0), "png", transparency=0), WHITE),
        # The transparent colour is written in as many bits as the file has.
        (png(2, 0, b"\x55\x55", tRNS=b"\0\x01"), WHITE),
        (png(2, 0, b"\x55\x55", tRNS=b"\0\x02"), (85, 85, 85)),
        (png(4, 0, b"\x33" * 4, tRNS=b"\0\x03"), WHITE),
        (png(16, 0, b"\x20\x20" * 8, tRNS=b"\x20\x20"), WHITE),
        (png(16, 0, b"\x20\x20" * 8, tRNS=b"\x20\x21"), (32, 32, 32)),
        (png(16, 2, b"\x20\x20\0\0\0\0" * 8, tRNS=b"\x20\x20\0\0\0\0"), WHITE),
        (png(16, 2, b"\x20\x20\0\0\0\0" * 8), (32, 0, 0)),
        (png(16, 4, b"\x20\x20\0\0" * 8), WHITE),
        (png(16, 6, b"\x20\x20\0\0\0\0\xff\xff" * 8), (32, 0, 0)),
    ],
    ids=by_outcome,
)
def test_what_is_transparent_is_put_on_white(content: bytes, seen: tuple[int, ...]) -> None:
    assert colour(content) == seen


def test_the_background_is_a_setting() -> None:
    clear = saved(with_alpha("RGBA", (9, 8, 7), 0), "png")
    assert colour(clear, background="black") == BLACK
    assert colour(clear, background="#010203") == (1, 2, 3)


def test_a_palette_of_which_some_is_transparent() -> None:
    image = of_palette(0)
    image.paste(1, (4, 0, 8, 8))
    pixels = decoded(saved(image, "png", transparency=b"\x00\xff"))
    assert tuple(pixels[4, 1]) == WHITE
    assert tuple(pixels[4, 6]) == (0, 200, 0)


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        (saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "tiff"), (255, 0, 0)),
        (saved(Image.new("YCbCr", (8, 8), (255, 128, 128)), "tiff"), WHITE),
        (saved(Image.new("1", (8, 8), 1), "ppm"), WHITE),
        (saved(Image.new("1", (8, 8), 1), "bmp"), WHITE),
        (saved(Image.new("L", (8, 8), 7), "jpeg"), (7, 7, 7)),
        (saved(Image.new("RGB", (8, 8), (7, 8, 9)), "ppm"), (7, 8, 9)),
    ],
    ids=by_outcome,
)
def test_other_modes(content: bytes, seen: tuple[int, ...]) -> None:
    assert colour(content) == seen


@pytest.mark.parametrize("format", ["gif", "webp", "png", "tiff"])
def test_of_an_animation_the_first_image(format: str) -> None:
    first, *others = (Image.new("RGB", (8, 8), (red, 0, 0)) for red in (250, 90, 10))
    options = {"lossless": True} if format == "webp" else {}
    content = saved(first, format, save_all=True, append_images=others, **options)
    assert colour(content) == (250, 0, 0)


def test_a_turned_image_is_upright() -> None:
    turned = Image.new("L", (SIZE, SIZE))
    turned.putpixel((0, 0), 200)
    exif = Image.Exif()
    exif[0x0112] = 6  # its top is at the right
    for format in "png", "tiff", "webp":
        pixels = decoded(saved(turned, format, exif=exif, lossless=True))
        assert pixels[0, -1, 0] == 200, format
        assert pixels[0, 0, 0] < 5, format


def test_the_square_in_the_middle_of_many_bits() -> None:
    wide = np.zeros((8, 24), "uint16")
    wide[:, 8:16] = 65535
    assert colour(saved(Image.fromarray(wide), "png")) == WHITE


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n/x 1 def\nshowpage\n%%EOF\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"nonsense", "cannot identify image file; what is read is BMP, GIF"),
        (saved(Image.fromarray(NOISE), "jpeg")[:-300], "truncated"),
        (saved(Image.fromarray(NOISE), "png")[:-300], "truncated"),
        (EPS, "cannot identify"),
        (saved(Image.new("RGB", (8, 8)), "tga"), "cannot identify"),
        (saved(Image.new("RGB", (8, 8)), "ico"), "cannot identify"),
    ],
    ids=by_outcome,
)
def test_what_is_no_image_of_these_formats_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises((DataError, OSError), match=reason):
        decoded(content)


def test_no_other_program_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would hand an EPS file, whatever its name, to Ghostscript."""
    started = tmp_path / "started"
    for name in "gs", "gswin64c", "gswin32c":
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch '{started}'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    with pytest.raises(DataError):
        decoded(EPS)
    assert not started.exists()


def test_pixels_are_counted_before_they_are_decoded() -> None:
    """A file of kilobytes can hold gigabytes of one colour."""
    large = png(8, 0, b"\0" * SIZE).replace(
        struct.pack(">II", SIZE, SIZE), struct.pack(">II", 30_000, 30_000)
    )
    at = large.index(b"IHDR")
    large = large[: at + 17] + struct.pack(">I", zlib.crc32(large[at : at + 17])) + large[at + 21 :]
    with pytest.raises(DataError, match="30000×30000 pixels are more than max_megapixels allows"):
        decoded(large)
    assert colour(saved(Image.new("L", (100, 100), 9), "png"), most=10_000) == (9, 9, 9)
    with pytest.raises(DataError, match="100×101"):
        decoded(saved(Image.new("L", (100, 101), 9), "png"), most=10_000)


def test_pillows_own_limit_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting alone decides, upwards too."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert colour(saved(Image.new("L", (100, 100), 9), "png")) == (9, 9, 9)
    assert Image.MAX_IMAGE_PIXELS == 10
