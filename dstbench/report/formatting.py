"""Numbers and text as tables show them."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

MISSING = "—"


def with_ratio(value: float, ratio: float, form: Callable[[float], str]) -> str:
    if math.isnan(value):
        return MISSING
    return form(value) if math.isnan(ratio) else f"{form(value)} (×{ratio:.3f})"


def with_interval(ratio: float, low: float, high: float) -> str:
    """A ratio ± the farther end of its interval."""
    if math.isnan(ratio):
        return MISSING
    half = max(high - ratio, ratio - low)
    digits = 2 if half >= 0.005 else 3
    return f"{ratio:.{digits}f} ± {half:.{digits}f}"


def scaled(scale: float) -> Callable[[float], str]:
    return lambda value: f"{value * scale:,.{decimals_of(value * scale)}f}"


def fixed(value: float, decimals: int) -> str:
    """A number with so many decimals."""
    return MISSING if math.isnan(value) else f"{value:.{decimals}f}"


def decimals_of(value: float) -> int:
    """How many decimals show three significant digits of a value."""
    return max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0


def escape_markdown(text: str) -> str:
    """Text that reads as it stands: no markup, no HTML, no end of a table's cell."""
    one_line = html.escape(" ".join(text.split()), quote=False)
    # An underscore within a word is no markup.
    return re.sub(r"[\\`*|\[]|(?<!\w)_|_(?!\w)", r"\\\g<0>", one_line)


def as_csv(frame: pd.DataFrame, *, index: bool = False) -> str:
    """A table as CSV in which no text is a formula to a spreadsheet."""
    told = frame.map(inert).rename(columns=inert)
    return told.rename(index=inert).to_csv() if index else told.to_csv(index=False)


def inert(value: Any) -> Any:
    """The value; text that would be a formula to a spreadsheet begins with an apostrophe."""
    formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if formula else value
