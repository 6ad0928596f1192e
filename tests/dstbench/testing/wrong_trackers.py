"""Trackers that each break a promise: one that ``caught_by`` names."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, field_validator
from wrong_plugins import Wrong

from dstbench.contracts import LayerChange, PluginSettings, Tracker
from dstbench.grid import Cell
from dstbench.records import Record


class RightTracker(Tracker):
    """Right: a file of lines for each cell."""

    name = "lines"

    class Settings(PluginSettings):
        digits: int = Field(6, ge=1, description="digits of a loss")

    def run_started(self, cells: Sequence[Cell]) -> None:
        self.path = self.results / "lines.jsonl"
        self.tell(cells=len(cells))

    def cell_started(self, cell: Cell, folder: Path) -> None:
        self.path = folder / "lines.jsonl"

    def progressed(self, step: int, loss: float, seconds_per_step: float) -> None:
        self.tell(step=step, loss=round(loss, self.settings.digits))

    def layers_changed(self, step: int, layers: Sequence[LayerChange]) -> None:
        self.tell(step=step, layers=[layer.name for layer in layers])

    def cell_ended(self, record: Record | None, sheet: Path | None) -> None:
        self.tell(numbers=record and record.numbers, sheet=str(sheet))

    def tell(self, **what: Any) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(what) + "\n")


class UndocumentedTracker(Wrong, RightTracker):
    """Has a setting without a description."""

    caught_by = "settings-are-documented"
    happens = "width: no description"

    class Settings(RightTracker.Settings):
        width: int = 3


class OpenTracker(Wrong, RightTracker):
    """Takes any setting."""

    caught_by = "settings-are-validated"
    happens = "was not refused"

    class Settings(RightTracker.Settings, extra="allow"):
        pass


class ShrinkingTracker(Wrong, RightTracker):
    """A setting shrinks each time that it is read."""

    caught_by = "settings-survive-a-record"
    happens = "digits = 5 came back as 4"

    class Settings(RightTracker.Settings):
        digits: int = Field(6, ge=1, description="digits of a loss", validate_default=True)

        @field_validator("digits")
        @classmethod
        def _shrink(cls, value: int) -> int:
            return value - 1


class Mute(Wrong, RightTracker):
    """Cannot be told of the start of a run."""

    caught_by = "a-run-is-told"
    happens = "KeyError: 'cells'"

    def run_started(self, cells: Sequence[Cell]) -> None:
        raise KeyError("cells")


class Waiting(Wrong, RightTracker):
    """Waits for a server that does not answer."""

    caught_by = "a-run-is-told"
    happens = "progressed has not returned after 0 seconds"
    patience = 0.3

    def progressed(self, step: int, loss: float, seconds_per_step: float) -> None:
        time.sleep(1)


class Once(Wrong, RightTracker):
    """Takes it that no cell has a file yet."""

    caught_by = "a-stopped-cell-goes-on"
    happens = "FileExistsError"

    def cell_started(self, cell: Cell, folder: Path) -> None:
        super().cell_started(cell, folder)
        self.path.touch(exist_ok=False)


class Confident(Wrong, RightTracker):
    """Takes it that every cell has scores."""

    caught_by = "a-cell-without-a-result-is-told"
    happens = "KeyError: 'scores/fid'"

    def cell_ended(self, record: Record | None, sheet: Path | None) -> None:
        if record is not None:
            self.tell(fid=record.numbers["scores/fid"])


class OneAtATime(Wrong, RightTracker):
    """Has one place for all cells of a process."""

    caught_by = "instances-live-side-by-side"
    happens = "RuntimeError: there is a cell already"
    current: str | None = None

    def cell_started(self, cell: Cell, folder: Path) -> None:
        super().cell_started(cell, folder)
        if OneAtATime.current not in (None, cell.id):
            OneAtATime.current = None  # so that the next check begins anew
            raise RuntimeError("there is a cell already")
        OneAtATime.current = cell.id

    def cell_ended(self, record: Record | None, sheet: Path | None) -> None:
        super().cell_ended(record, sheet)
        OneAtATime.current = None


class Drawing(Wrong, RightTracker):
    """Draws which steps it tells of."""

    caught_by = "training-is-left-alone"
    happens = "torch's generator had changed"

    def progressed(self, step: int, loss: float, seconds_per_step: float) -> None:
        if torch.rand(()).item() < 0.5:
            super().progressed(step, loss, seconds_per_step)


class Littering(Wrong, RightTracker):
    """Writes where it is called."""

    caught_by = "the-current-folder-is-left-alone"
    happens = "the current folder has lines.jsonl now"

    def cell_started(self, cell: Cell, folder: Path) -> None:
        super().cell_started(cell, Path.cwd())
