"""The tracker: one event file, or several where a cell was stopped, for each cell."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from pydantic import Field

from dstbench.contracts import LayerChange, PluginSettings, Tracker
from dstbench.grid import Cell
from dstbench.plugins import require
from dstbench.records import Record


class TensorBoard(Tracker["TensorBoard.Settings"]):
    """Event files that TensorBoard shows: loss, layers, settings, scores and samples of each cell.

    Needs ``pip install 'dstbench[tensorboard]'``; ``tensorboard --logdir results/NAME`` then shows
    the cells of a benchmark, while they are trained and later.
    """

    name = "tensorboard"
    packages: ClassVar[Mapping[str, str]] = {"tensorboard": "dstbench[tensorboard]"}

    class Settings(PluginSettings):
        folder: Path | None = Field(
            None,
            description="folder with one for each cell, relative to the benchmark's results; none: "
            "event files lie in the cells' own folders there",
        )

    def __init__(self, settings: Settings, benchmark: str, results: Path) -> None:
        super().__init__(settings, benchmark, results)
        require("tensorboard", "tracker 'tensorboard'", "dstbench[tensorboard]")
        self._writer: Any = None

    def cell_started(self, cell: Cell, folder: Path) -> None:
        self._cell = cell
        elsewhere = self.settings.folder
        self._folder = folder if elsewhere is None else self.results / elsewhere / cell.id

    def progressed(self, step: int, loss: float, seconds_per_step: float) -> None:
        writer = self._open(step)
        writer.add_scalar("loss", loss, step)
        writer.add_scalar("seconds_per_step", seconds_per_step, step)
        writer.flush()  # what a killed process has told is not told again

    def layers_changed(self, step: int, layers: Sequence[LayerChange]) -> None:
        writer = self._open(step)
        for layer in layers:
            writer.add_scalar(f"density/{layer.name}", layer.density, step)
            writer.add_scalar(f"changed/{layer.name}", layer.changed, step)

    def cell_ended(self, record: Record | None, sheet: Path | None) -> None:
        if record is not None:
            self._add_result(record, sheet)
        if self._writer is not None:
            self._writer.close()

    def _add_result(self, record: Record, sheet: Path | None) -> None:
        writer, step = self._open(None), self._cell.training["steps"]
        writer.add_text("settings", _code(json.dumps(self._cell.settings, indent=2)), step)
        writer.add_text("status", _code(f"{record.status}\n{record.error or ''}"), step)
        for name, value in record.numbers.items():
            writer.add_scalar(name, value, step)
        self._add_hyperparameters(record)
        if sheet is not None:
            pixels = np.asarray(Image.open(sheet).convert("RGB"))
            writer.add_image("samples", pixels, step, dataformats="HWC")

    def _open(self, step: int | None) -> Any:
        """The writer, which makes what an earlier process told of this step and later ones
        invisible when it is opened."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=step)
        return self._writer

    def _add_hyperparameters(self, record: Record) -> None:
        """Add the cell to the table of all cells that TensorBoard calls HPARAMS."""
        from torch.utils.tensorboard.summary import hparams

        values = {
            key: value if isinstance(value, bool | int | float | str) else json.dumps(value)
            for key, value in self._cell.flattened.items()
        }
        for summary in hparams(values, record.numbers):
            self._writer.file_writer.add_summary(summary)


def _code(text: str) -> str:
    """A text that markdown shows as it is."""
    return "\n".join(f"    {line}" for line in text.splitlines())
