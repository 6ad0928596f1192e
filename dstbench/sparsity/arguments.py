"""The arguments of a sparsifier that pydantic does not see."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

from dstbench.errors import SparsityError


def check_arguments(sparsity: Any, total_steps: Any) -> None:
    """Raise :class:`SparsityError` unless ``sparsity`` is a number in [0, 1), and ``total_steps``
    a whole number of at least 1."""
    is_number = isinstance(sparsity, Real) and not isinstance(sparsity, bool)
    if not is_number or not 0 <= sparsity < 1:
        raise SparsityError(f"sparsity must be at least 0 and below 1, not {_shown(sparsity)}")
    is_whole = isinstance(total_steps, Integral) and not isinstance(total_steps, bool)
    if not is_whole or total_steps < 1:
        raise SparsityError(
            "total_steps must be the number of optimizer steps of the training, at least 1, not "
            f"{_shown(total_steps)}"
        )


def _shown(value: Any) -> str:
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    return repr(value)
