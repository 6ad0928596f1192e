"""The history of a training: ``history.csv``, a row every few steps."""

from __future__ import annotations

import csv
from pathlib import Path

from dstbench.store.files import write_atomically

HISTORY = ("step", "loss", "seconds_per_step", "topology_updates")


def rewind(history: Path, step: int) -> None:
    """Leave the header, and the rows of no step that is yet to be taken (again)."""
    rows: list[list[str]] = []
    if history.exists():
        with history.open(newline="", errors="replace") as file:
            rows = list(csv.reader(file))[1:]
    kept = [
        row
        for row in rows
        if len(row) == len(HISTORY) and row[0].isdecimal() and int(row[0]) <= step
    ]

    def write(path: Path) -> None:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([HISTORY, *kept])

    write_atomically(history, write)
