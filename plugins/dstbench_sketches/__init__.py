"""Chirographic datasets: drawings as sequences of a pen's points."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dstbench import hookimpl

if TYPE_CHECKING:
    from dstbench.contracts import Dataset


@hookimpl
def dstbench_datasets() -> list[type[Dataset]]:
    from dstbench_sketches.digits_strokes import DigitsStrokes
    from dstbench_sketches.kanjivg import KanjiVG
    from dstbench_sketches.quickdraw import QuickDraw
    from dstbench_sketches.vmnist import VMNIST

    return [DigitsStrokes, KanjiVG, QuickDraw, VMNIST]
