"""Handwritten digits as strokes, traced from those that come with scikit-learn: no download."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dstbench.contracts import Data, Workspace
from dstbench_sketches.preparing import (
    Drawing,
    SketchDataset,
    SketchSettings,
    Splits,
    Typical,
    prepare,
)
from dstbench_sketches.sketch import Stroke

VALIDATION = 297
"""Drawings held out; the other 1,500 are for training. The same digits as dataset ``digits``."""


class DigitsStrokes(SketchDataset["DigitsStrokes.Settings"]):
    """1,797 digits of one to three strokes, split 1,500 / 297 with each class in proportion.

    Traced from the 8×8 images of scikit-learn's ``load_digits`` (the test part of UCI's 'Optical
    Recognition of Handwritten Digits', doi:10.24432/C50P49). The pictures look like those images:
    white lines on black that fill the frame.
    """

    name = "digits-strokes"
    typical = Typical(strokes=1.3, length=2.04, source="the mean of those digits")

    class Settings(SketchSettings):
        image_size: int = Field(
            32, ge=8, le=1024, description="pixels on a side of a scored picture"
        )
        line_width: float = Field(
            0.14,
            gt=0,
            le=0.5,
            description="width of lines in a scored picture, as a fraction of its side",
        )

    def load(self, workspace: Workspace) -> Data:
        from sklearn.datasets import load_digits

        digits = load_digits()
        key = {
            "images": hashlib.sha256(digits.images.tobytes()).hexdigest(),
            "held_out": VALIDATION,
        }
        return prepare(self.name, key, lambda: _split(digits), _read, self.settings, workspace)


def _split(digits: Any) -> Splits:
    from sklearn.model_selection import train_test_split

    drawings = [Drawing(f"digit {n}", image) for n, image in enumerate(digits.images)]
    return Splits(
        *train_test_split(drawings, test_size=VALIDATION, random_state=0, stratify=digits.target)
    )


def _read(image: NDArray[np.float64]) -> list[Stroke]:
    """The strokes of grey levels 0…16 (8, 8)."""
    from dstbench_sketches.tracing import trace

    return trace(image / 16)
