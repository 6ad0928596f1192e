"""Handwritten digits that come with scikit-learn: real images that need no download."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dstbench.contracts import Data, Dataset, Items, Workspace

SIZE = 32
"""Pixels on a side, after upsampling from 8."""

VALIDATION = 297
"""Images held out; the other 1,500 are for training."""


class Digits(Dataset):
    """1,797 grey digits, 32×32, split 1,500 / 297 with each class in proportion; labels are 0 to 9.

    The 8×8 images of scikit-learn's ``load_digits`` (the test part of UCI's 'Optical Recognition
    of Handwritten Digits', doi:10.24432/C50P49), upsampled bilinearly.
    """

    name = "digits"
    kind = "images"

    def outline(self) -> Items:
        return Items((1, SIZE, SIZE), classes=10)

    def load(self, workspace: Workspace) -> Data:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        target = digits.target
        train, validation = train_test_split(
            range(len(target)), test_size=VALIDATION, random_state=0, stratify=target
        )
        images = _enlarge(torch.from_numpy(digits.images))
        return Data.of_images(
            # Clones, because a view would take all images along to another process.
            train=[image.clone() for image in images[train]],
            validation=[image.clone() for image in images[validation]],
            labels={"train": target[train].tolist(), "validation": target[validation].tolist()},
        )


def _enlarge(images: Tensor) -> Tensor:
    """Grey levels 0…16 (N, 8, 8) to uint8 (N, 1, 32, 32)."""
    grey = images[:, None].float() * (255 / 16)
    large = F.interpolate(grey, size=(SIZE, SIZE), mode="bilinear", antialias=True)
    return large.round().clamp(0, 255).to(torch.uint8)
