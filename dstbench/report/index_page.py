"""The page that leads to the reports of several benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dstbench.report.templates import render_template


@dataclass(frozen=True)
class Entry:
    """What the page says of one benchmark. Addresses are relative, and quoted."""

    name: str
    href: str
    """The address of its report."""
    counts: Mapping[str, int]
    """Numbers of cells by state, such as ``{"done": 3}``."""
    facts: Sequence[str] = ()
    findings: Sequence[str] = ()
    running: Sequence[tuple[str, ...]] = ()
    """Of each cell that is running: which, since when, at which step, with which loss."""
    links: Sequence[tuple[str, str]] = ()
    """Names and addresses of further files."""
    picture: str = ""
    """The address of one, if there is any."""


def render_index(
    entries: Sequence[Entry], summary: str, *, title: str = "Benchmarks", live: str = ""
) -> str:
    """The page, HTML; ``live`` is its version, where a dashboard serves it."""
    return render_template("index.html", entries=entries, title=title, summary=summary, live=live)
