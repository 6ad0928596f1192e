"""Samples as files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dstbench.contracts import Data
from dstbench.errors import DataError
from dstbench.report.files import write_samples

PIXELS = Data([], [], "pixels", lambda items: torch.stack(list(items)))
DRAWINGS = Data([], [], "drawings", lambda items: torch.zeros(len(items), 1, 2, 2), str)


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_written_as_they_are(tmp_path: Path, channels: int) -> None:
    images = torch.arange(2 * channels * 6, dtype=torch.uint8).view(2, channels, 2, 3)
    write_samples(images, PIXELS, "png", tmp_path / "new" / "folder")
    files = sorted((tmp_path / "new" / "folder").iterdir())
    assert [file.name for file in files] == ["0000.png", "0001.png"]
    for file, image in zip(files, images, strict=True):
        pixels = np.asarray(Image.open(file)).reshape(2, 3, channels)
        assert np.array_equal(pixels, image.permute(1, 2, 0).numpy())


def test_a_drawing_is_its_svg(tmp_path: Path) -> None:
    write_samples(["é", "b"], DRAWINGS, "svg", tmp_path)
    assert [file.read_bytes() for file in sorted(tmp_path.iterdir())] == ["é".encode(), b"b"]


def test_pixels_are_no_svg_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="these samples are pixels, of which there is no SVG"):
        write_samples(torch.zeros(1, 1, 2, 2), PIXELS, "svg", tmp_path / "new")
    assert not (tmp_path / "new").exists()
