"""The contract between dstbench and its plugins: one hook per thing that can be plugged in.

A plugin is a module named by an entry point of the group ``dstbench``, with functions of these
names marked by :data:`dstbench.hookimpl`.

The hooks that return nothing are events, for plugins that listen. Those of a run are told in the
process that deals out its cells, those of a cell in the process that runs it. What a listener
raises while a cell runs fails the cell: its record holds the traceback, and the next run goes on
from its checkpoint. What it raises when a cell has ended, or when a run starts or ends, is
reported, and costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from dstbench.cell import Cell
    from dstbench.contracts import (
        Dataset,
        Executor,
        FeatureExtractor,
        LayerChange,
        Metric,
        Model,
        Tracker,
    )
    from dstbench.records import Record
    from dstbench.sparsity import Sparsifier

hookspec = pluggy.HookspecMarker("dstbench")


@hookspec
def dstbench_models() -> list[type[Model]]:  # type: ignore[empty-body]
    """Model classes."""


@hookspec
def dstbench_datasets() -> list[type[Dataset]]:  # type: ignore[empty-body]
    """Dataset classes."""


@hookspec
def dstbench_sparsifiers() -> list[type[Sparsifier]]:  # type: ignore[empty-body]
    """Sparsifier classes."""


@hookspec
def dstbench_feature_extractors() -> list[type[FeatureExtractor]]:  # type: ignore[empty-body]
    """Feature-extractor classes."""


@hookspec
def dstbench_metrics() -> list[type[Metric]]:  # type: ignore[empty-body]
    """Metric classes."""


@hookspec
def dstbench_executors() -> list[type[Executor]]:  # type: ignore[empty-body]
    """Executor classes."""


@hookspec
def dstbench_trackers() -> list[type[Tracker]]:  # type: ignore[empty-body]
    """Tracker classes."""


@hookspec
def dstbench_run_started(benchmark: str, cells: Sequence[Cell]) -> None:
    """These cells of a benchmark are about to be run: those that have no result yet."""


@hookspec
def dstbench_run_finished(benchmark: str, records: Sequence[Record]) -> None:
    """A run is over, or was stopped; these are the records that it has made."""


@hookspec
def dstbench_cell_started(cell: Cell) -> None:
    """A cell is about to be trained, or to go on from its checkpoint."""


@hookspec
def dstbench_step(cell: Cell, step: int, loss: float) -> None:
    """An optimizer step was taken; ``step`` counts from 1."""


@hookspec
def dstbench_progressed(cell: Cell, step: int, loss: float, seconds_per_step: float) -> None:
    """Every ``log_every`` steps, a row of ``history.csv``: means over the steps since the row
    before."""


@hookspec
def dstbench_topology_updated(cell: Cell, step: int, changed: int) -> None:
    """A topology update replaced ``changed`` connections by others."""


@hookspec
def dstbench_layers_changed(cell: Cell, step: int, layers: Sequence[LayerChange]) -> None:
    """The rows of ``topology.csv`` for one step: masked layers at the start, and after topology
    updates that are not too close together."""


@hookspec
def dstbench_cell_finished(cell: Cell, record: Record) -> None:
    """A cell ended, well or not; ``record.status`` says which."""
