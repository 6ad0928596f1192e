"""What a training leaves behind as it goes: tables whose first column is the step."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import fmean

from dstbench.contracts import LayerChange
from dstbench.files import read_regular
from dstbench.sparsity import Sparsifier
from dstbench.store.files import MOST, write_atomically
from dstbench.store.folder import CellFolder

HISTORY = ("step", "loss", "seconds_per_step", "topology_updates")

TOPOLOGY = ("step", "layer", "density", "changed")

UPDATES = 200
"""Topology updates that are told of, at most."""


def tables(folder: CellFolder) -> dict[str, str]:
    """The text of each table that is there, by file name: what a checkpoint keeps of them."""
    found = {}
    for path in (folder.history, folder.topology):
        with suppress(OSError):  # no reason to stop training
            found[path.name] = read_regular(path, MOST).decode(errors="replace")
    return found


def restore(folder: CellFolder, kept: Mapping[str, str]) -> list[Path]:
    """Make the tables as a checkpoint has kept them; those that did not begin like that."""
    damaged = []
    for name, text in kept.items():
        path, content = folder.path / name, text.encode()
        try:
            whole = read_regular(path, MOST).startswith(content)
        except OSError:
            whole = False
        if not whole:
            damaged.append(path)
        if path.is_dir():
            path.rename(path.with_name(f"{name}.damaged"))
        write_atomically(path, partial(Path.write_bytes, data=content))
    return damaged


def rewind(history: Path, header: Sequence[str], step: int) -> None:
    """Leave the header, and the rows of no step that is yet to be taken (again): at the start,
    none."""
    rows: list[list[str]] = []
    if step and history.is_file():
        with history.open(newline="", errors="replace") as file:
            rows = list(csv.reader(file))[1:]
    kept = [
        row
        for row in rows
        if len(row) == len(header) and row[0].isdecimal() and int(row[0]) <= step
    ]

    def write(path: Path) -> None:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([header, *kept])

    write_atomically(history, write)


def ignore(**row: object) -> None:
    """What is called with the rows of a table that nobody follows."""


class History:
    """The course of a training, ``history.csv``: rows of means over the steps since the row before.

    Args:
        step: that the training goes on from.
        tell: called with the ``step``, ``loss`` and ``seconds_per_step`` of each row.
    """

    def __init__(self, path: Path, step: int, tell: Callable[..., object] = ignore) -> None:
        self._path = path
        self._tell = tell
        rewind(path, HISTORY, step)

    def write(self, step: int, steps: Sequence[tuple[float, float]], topology_updates: int) -> None:
        """Write a row, of the loss and the seconds of the steps up to that one."""
        loss, seconds = map(fmean, zip(*steps, strict=True))
        with self._path.open("a", newline="") as file:
            csv.writer(file).writerow([step, f"{loss:.6g}", f"{seconds:.6g}", topology_updates])
        self._tell(step=step, loss=loss, seconds_per_step=seconds)


class TopologyLog:
    """The densities of layers over time, ``topology.csv``: of each masked layer a row at the start,
    and at topology updates that are not too close together.

    Args:
        steps: of the whole training, over which at most :data:`UPDATES` updates are spread.
        step: that the training goes on from.
        tell: called with each ``step`` and its ``layers`` that are written.
    """

    def __init__(
        self,
        path: Path,
        sparsifier: Sparsifier,
        steps: int,
        step: int,
        tell: Callable[..., object] = ignore,
    ) -> None:
        self._path = path
        self._tell = tell
        self._sparsifier = sparsifier
        self._apart = steps / UPDATES
        rewind(path, TOPOLOGY, step)
        with path.open(newline="") as file:
            told = [int(row["step"]) for row in csv.DictReader(file)]
        self._latest = told[-1] if told else None
        if self._latest is None:
            self._write(step, {})

    def note(self, step: int) -> None:
        """Tell of the topology update that followed a step."""
        if self._latest is None or step - self._latest >= self._apart:
            self._write(step, self._sparsifier.changes)

    def follow(self, announce: Callable[..., object]) -> None:
        """Note each topology update from now on, and announce its ``step`` and number of
        connections ``changed``."""

        def tell(step: int, changed: int) -> None:
            self.note(step)
            announce(step=step, changed=changed)

        self._sparsifier.on_topology_update = tell

    def _write(self, step: int, changes: Mapping[str, int]) -> None:
        self._latest = step
        layers = [
            LayerChange(layer.name, layer.density, changes.get(layer.name, 0))
            for layer in self._sparsifier.sparse_layers
        ]
        with self._path.open("a", newline="") as file:
            csv.writer(file).writerows(
                (step, layer.name, f"{layer.density:.6g}", layer.changed) for layer in layers
            )
        self._tell(step=step, layers=layers)
