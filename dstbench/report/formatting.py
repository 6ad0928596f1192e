"""Numbers and text as tables show them."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable

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
    return lambda value: f"{value * scale:,.{_decimals(value * scale)}f}"


def _fixed(value: float, decimals: int) -> str:
    return MISSING if math.isnan(value) else f"{value:.{decimals}f}"


def _decimals(value: float) -> int:
    """How many decimals show three significant digits of a value."""
    return max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0


def escape_markdown(text: str) -> str:
    """Text that reads as it stands: no markup, no HTML, no end of a table's cell."""
    one_line = html.escape(" ".join(text.split()), quote=False)
    # An underscore within a word is no markup.
    return re.sub(r"[\\`*|\[]|(?<!\w)_|_(?!\w)", r"\\\g<0>", one_line)
