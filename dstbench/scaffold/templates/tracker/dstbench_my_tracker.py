"""my-tracker, a tracker for dstbench."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dstbench import hookimpl
from dstbench.contracts import LayerChange, PluginSettings, Tracker
from dstbench.grid import Cell
from dstbench.records import Record
from pydantic import Field


class MyTracker(Tracker["MyTracker.Settings"]):
    """Lines of JSON: what happens to each cell, in a file in its folder.

    CHANGE THIS: say which program yours tells, and what it needs. `dstbench plugins` prints the
    first line.
    """

    name = "my-tracker"

    class Settings(PluginSettings):
        # CHANGE THIS: what a benchmark may set under [tracking.my-tracker].
        layers: bool = Field(True, description="whether to tell of layers, too")

    # Each method may be left out. An instance is told of one run, or of one cell, in the process
    # that runs it. To have what fails told before anything is trained (a package, or a server,
    # that is not there), do it in __init__ or run_started.

    def run_started(self, cells: Sequence[Cell]) -> None:
        self._path = self.results / "my-tracker.jsonl"
        self._tell("run started", cells=len(cells))

    def run_ended(self, records: Sequence[Record]) -> None:
        self._tell("run ended", done=sum(record.status == "done" for record in records))

    def cell_started(self, cell: Cell, folder: Path) -> None:
        self._path = folder / "my-tracker.jsonl"
        self._tell("started", **cell.flattened)

    def progressed(self, step: int, loss: float, seconds_per_step: float) -> None:
        # CHANGE THIS: steps since the checkpoint come once more where a cell was stopped, with the
        # same numbers; a program that cannot take that is to be told of each step once.
        self._tell("progressed", step=step, loss=loss, seconds_per_step=seconds_per_step)

    def layers_changed(self, step: int, layers: Sequence[LayerChange]) -> None:
        if self.settings.layers:
            densities = {layer.name: layer.density for layer in layers}
            self._tell("layers changed", step=step, densities=densities)

    def cell_ended(self, record: Record | None, sheet: Path | None) -> None:
        if record is None:
            self._tell("stopped")
        else:
            self._tell(record.status, samples=str(sheet), **record.numbers)

    def _tell(self, event: str, **what: Any) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": time.time(), "event": event, **what}) + "\n")


@hookimpl
def dstbench_trackers() -> list[type[Tracker]]:
    return [MyTracker]
