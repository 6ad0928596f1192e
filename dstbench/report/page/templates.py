"""Pages of HTML, in which all text is escaped."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape


def render_template(name: str, **values: Any) -> str:
    """The page that a template beside this module makes of these values."""
    return _templates().get_template(name).render(**values)


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("dstbench.report.page", "."),
        autoescape=select_autoescape(default=True),
    )
