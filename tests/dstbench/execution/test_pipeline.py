"""What the pipeline keeps of a cell's samples; its way is tested with the scheduler."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dstbench.execution.pipeline import keep_samples
from dstbench.store import CellFolder


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_and_their_picture(tmp_path: Path, channels: int) -> None:
    folder = CellFolder(tmp_path)
    images = torch.arange(5 * 2 * 3 * channels).to(torch.uint8).reshape(5, channels, 2, 3)
    keep_samples(folder, images)
    kept = np.load(folder.samples, allow_pickle=False)
    np.testing.assert_array_equal(kept, images.permute(0, 2, 3, 1).numpy())
    picture = np.asarray(Image.open(folder.sheet))
    assert picture.shape == (4, 9, 3)
    np.testing.assert_array_equal(picture[:2, :, :channels], np.concatenate([*kept[:3]], axis=1))
    np.testing.assert_array_equal(picture[2:, :6, :channels], np.concatenate([*kept[3:]], axis=1))
    assert not picture[2:, 6:].any()
