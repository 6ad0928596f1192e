"""Trackers, told of a run and of its cells in such a way that none of them can cost one.

The process that deals out the cells tells of the run, each process that runs cells tells of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pluggy

from dstbench.cell import Cell
from dstbench.contracts import LayerChange, Tracker
from dstbench.errors import DstbenchError
from dstbench.plugins.isolation import FAILURES, Aside, isolate
from dstbench.plugins.registry import Plugins
from dstbench.records import Record
from dstbench.store.folder import CellFolder

SECONDS = 60.0
"""Time that a tracker has for a call, before it is left alone for good."""

Settings = Mapping[str, Any]

hookimpl = pluggy.HookimplMarker("dstbench")


@dataclass(frozen=True)
class Tracking:
    """What is to be told of a run, in whatever process."""

    benchmark: str = ""
    """The benchmark's name; empty: that of its results folder."""
    trackers: Mapping[str, Settings] = field(default_factory=dict)
    """Settings of trackers, as JSON has them, by name."""


class Trackers:
    """The trackers of a run, as far as one process tells them."""

    def __init__(
        self,
        tracking: Tracking,
        plugins: Plugins,
        results: Path,
        report: Callable[[str], None],
    ) -> None:
        self._tracking = tracking
        self._benchmark = tracking.benchmark or results.absolute().name
        self._plugins = plugins
        self._results = results
        self._report = report
        self._reported: set[str] = set()
        self._hanging: set[str] = set()

    @contextmanager
    def told_of_run(
        self, cells: Sequence[Cell], made: Callable[[], Sequence[Record]]
    ) -> Iterator[Tracking]:
        """Tell trackers, and plugins that listen, of the start and the end of a run.

        Yields what its cells are to be told to: trackers that fail here would fail there, too.

        Args:
            made: gives the records that the run has made.
        """
        hook = self._plugins.manager.hook
        told = self._start()
        for each in told:
            each.tell("run_started", cells)
        with isolate(self._report):
            hook.dstbench_run_started(benchmark=self._benchmark, cells=cells)
        well = {each.name: self._tracking.trackers[each.name] for each in told if each.is_well}
        try:
            yield Tracking(self._benchmark, well)
        finally:
            records = made()
            with isolate(self._report):
                hook.dstbench_run_finished(benchmark=self._benchmark, records=records)
            for each in told:
                each.end("run_ended", records)

    @contextmanager
    def told_of(self, cell: Cell, folder: CellFolder) -> Iterator[None]:
        """Tell of a cell, once it has started, what the plugins' hooks hear of it in here."""
        if not self._tracking.trackers:
            yield
            return
        following = _Following(cell, folder, self._start)
        self._plugins.manager.register(following)
        try:
            yield
        finally:
            self._plugins.manager.unregister(following)
            following.end(None)

    def _start(self) -> list[_Told]:
        """An instance of each tracker that does not hang."""
        names = [name for name in self._tracking.trackers if name not in self._hanging]
        return [_Told(name, self._make, self._failed) for name in names]

    def _make(self, name: str) -> Tracker:
        cls: type[Tracker] = self._plugins.find("tracker", name)
        settings = cls.Settings(**self._tracking.trackers[name])
        return cls(settings, self._benchmark, self._results)

    def _failed(self, name: str, error: BaseException) -> None:
        """Note that a tracker failed, and report it the first time."""
        if isinstance(error, TimeoutError):
            self._hanging.add(name)
        if name not in self._reported:
            self._reported.add(name)
            reason = str(error) if isinstance(error, DstbenchError) else _in_words(error)
            self._report(f"tracker '{name}' failed, cells are run without it: {reason}")


class _Told:
    """An instance of a tracker, told what happens until it fails, and then of the end alone."""

    def __init__(
        self,
        name: str,
        make: Callable[[str], Tracker],
        failed: Callable[[str, BaseException], None],
    ) -> None:
        self.name = name
        self.is_well = True
        self._hangs = False
        self._failed = failed
        self._aside = Aside()
        self._tracker: Any = self._call(make, name)

    def tell(self, event: str, *what: Any) -> None:
        """Call this method of the tracker."""
        if self.is_well:
            self._call(getattr(self._tracker, event), *what)

    def end(self, event: str, *what: Any) -> None:
        """Call this method, which comes last, also of a tracker that failed: it may close files."""
        if self._tracker is not None and not self._hangs:
            self._call(getattr(self._tracker, event), *what)
        self._aside.close()

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return self._aside.call(SECONDS, function, *arguments)
        except FAILURES as error:
            self.is_well = False
            self._hangs = isinstance(error, TimeoutError)
            self._failed(self.name, error)
            return None


class _Following:
    """Hears the hooks of one cell, and tells trackers.

    Layers change in the middle of a step, which is timed: of them it tells after the step.
    """

    def __init__(self, cell: Cell, folder: CellFolder, start: Callable[[], list[_Told]]) -> None:
        self._cell = cell
        self._folder = folder
        self._start = start
        self._told: list[_Told] | None = None
        self._changes: list[tuple[int, Sequence[LayerChange]]] = []

    @hookimpl
    def dstbench_cell_started(self, cell: Cell) -> None:
        if cell.id == self._cell.id:
            self._told = self._start()
            self._tell("cell_started", cell, self._folder.path)

    @hookimpl
    def dstbench_layers_changed(self, cell: Cell, step: int, layers: Sequence[LayerChange]) -> None:
        if cell.id == self._cell.id:
            self._changes.append((step, layers))

    @hookimpl
    def dstbench_progressed(
        self, cell: Cell, step: int, loss: float, seconds_per_step: float
    ) -> None:
        if cell.id == self._cell.id:
            self._tell_changes()
            self._tell("progressed", step, loss, seconds_per_step)

    @hookimpl
    def dstbench_cell_finished(self, cell: Cell, record: Record) -> None:
        if cell.id == self._cell.id:
            if self._told is None:  # it timed out, in a process that was ended
                self.dstbench_cell_started(cell)
            self.end(record)

    def end(self, record: Record | None) -> None:
        """Tell of the end of the cell, unless that was told."""
        if self._told is None:
            return
        self._tell_changes()
        done = record is not None and record.status == "done" and self._folder.sheet.exists()
        told, self._told = self._told, None
        for each in told:
            each.end("cell_ended", record, self._folder.sheet if done else None)

    def _tell_changes(self) -> None:
        changes, self._changes = self._changes, []
        for step, layers in changes:
            self._tell("layers_changed", step, layers)

    def _tell(self, event: str, *what: Any) -> None:
        for each in self._told or ():
            each.tell(event, *what)


def _in_words(error: BaseException) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return f"it did not answer within {SECONDS:.0f} seconds"
    return f"{type(error).__name__}: {error}"
