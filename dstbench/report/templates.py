"""Pages of HTML, in which all text is escaped."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, select_autoescape


def render_template(name: str, **values: Any) -> str:
    """The page that a template in the folder ``page`` makes of these values."""
    return _templates().get_template(name).render(**values)


@cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).with_name("page")),
        autoescape=select_autoescape(default=True),
    )
