"""The arguments of a sparsifier."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from pydantic import ValidationError

from dstbench.errors import SparsityError
from dstbench.settings import PluginSettings


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


def validated(settings: type[PluginSettings], values: Mapping[str, Any], method: str) -> Any:
    """The settings with these values.

    Raises:
        SparsityError: naming the ``method``, for values that are not the settings'.
    """
    try:
        return settings(**values)
    except ValidationError as error:
        raise SparsityError(f"{method}: {error}") from None


def _shown(value: Any) -> str:
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    return repr(value)
