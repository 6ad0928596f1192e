"""Prune-rate schedules: the fraction of a layer's active weights that an update replaces."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["constant", "cosine", "linear"]
"""How the prune rate falls in the course of the training."""


def prune_rate_at(schedule: Schedule, initial: float, progress: float) -> float:
    """The prune rate when a fraction ``progress`` (0 to 1) of the exploring steps is done.

    ``cosine`` is p/2 · (1 + cos(π · progress)) (Evci et al. 2020, section 3); ``linear`` is
    p · (1 − progress).
    """
    if schedule == "cosine":
        return initial / 2 * (1 + math.cos(math.pi * progress))
    if schedule == "linear":
        return initial * (1 - progress)
    return initial
