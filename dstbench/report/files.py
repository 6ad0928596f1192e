"""Samples as files, one each: pixels as PNG, drawings also as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from dstbench.contracts import Data
from dstbench.errors import DataError
from dstbench.images import to_picture


def write_samples(
    samples: Sequence[Any] | Tensor, data: Data, format: Literal["png", "svg"], folder: Path
) -> None:
    """Write ``0000.png`` (or ``.svg``), ``0001.png``, … into ``folder``, which is made if need be.

    ``samples`` are items of the dataset, real or generated.

    Raises:
        DataError: SVG is asked of what is no drawing.
    """
    if format == "png":
        files = [_png(image) for image in data.to_images(samples)]
    elif data.to_svg is not None:
        files = [data.to_svg(sample).encode() for sample in samples]
    else:
        raise DataError("these samples are pixels, of which there is no SVG; write them as png")
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(files):
        (folder / f"{number:04}.{format}").write_bytes(content)


def _png(image: Tensor) -> bytes:
    file = BytesIO()
    to_picture(image).save(file, "png")
    return file.getvalue()
