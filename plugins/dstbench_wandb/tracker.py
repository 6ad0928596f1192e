"""The tracker: a project for a benchmark, and in it a run for each cell."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal
from uuid import uuid4

from pydantic import Field

from dstbench.contracts import LayerChange, PluginSettings, Tracker
from dstbench.grid import Cell
from dstbench.plugins import require
from dstbench.records import Record

FILE = "wandb-run.txt"
"""The file, in the results of a benchmark or of a cell, with its run's id and the latest step that
the run was told of."""

SECONDS_TO_START = 30
"""Time that the server has to answer when a run starts."""


class WandB(Tracker["WandB.Settings"]):
    """Runs of Weights & Biases, one for each cell; or of Trackio, whose functions are the same.

    Needs ``pip install 'dstbench[wandb]'`` and an account (``wandb login``), or mode "offline",
    whose runs ``wandb sync`` sends later; Trackio needs ``pip install trackio``.
    """

    name = "wandb"
    packages: ClassVar[Mapping[str, str]] = (
        {} if find_spec("trackio") else {"wandb": "dstbench[wandb]"}
    )

    class Settings(PluginSettings):
        library: Literal["wandb", "trackio"] = Field("wandb", description="package that is told")
        project: str | None = Field(
            None, description="project that runs belong to; none: of the benchmark's name"
        )
        mode: Literal["online", "offline"] | None = Field(
            None,
            description="whether runs are sent while they go on (of wandb); none: as the "
            "environment variable WANDB_MODE says, or online",
        )

    trial_settings: ClassVar[Mapping[str, Any]] = {"mode": "offline"}

    def __init__(self, settings: Settings, benchmark: str, results: Path) -> None:
        super().__init__(settings, benchmark, results)
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # nothing is told to anybody else
        extra = "dstbench[wandb]" if settings.library == "wandb" else "trackio"
        self._library = require(settings.library, "tracker 'wandb'", extra)

    def run_started(self, cells: Sequence[Cell]) -> None:
        self._start(self.benchmark, "benchmark", {"cells": len(cells)}, self.results)
        self._finish(True)

    def run_ended(self, records: Sequence[Record]) -> None:
        self._start(self.benchmark, "benchmark", {}, self.results)
        done = [record.status == "done" for record in records]
        self._run.log({"done": sum(done), "not done": len(done) - sum(done)})
        self._finish(all(done))

    def cell_started(self, cell: Cell, folder: Path) -> None:
        self._start(cell.id, "cell", cell.model_dump(mode="json"), folder)
        self._steps = cell.training["steps"]

    def progressed(self, step: int, loss: float, seconds_per_step: float) -> None:
        if step > self._told:
            self._run.log({"loss": loss, "seconds_per_step": seconds_per_step}, step=step)
            self._keep(step)

    def layers_changed(self, step: int, layers: Sequence[LayerChange]) -> None:
        if step > self._told:
            densities = {f"density/{layer.name}": layer.density for layer in layers}
            changed = {f"changed/{layer.name}": layer.changed for layer in layers}
            self._run.log(densities | changed, step=step)

    def cell_ended(self, record: Record | None, sheet: Path | None) -> None:
        if record is not None:
            image = {"samples": self._library.Image(str(sheet))} if sheet else {}
            self._run.log({**record.numbers, "status": record.status, **image}, step=self._steps)
        self._finish(record is not None and record.status == "done")

    def _start(self, name: str, job: str, settings: Mapping[str, Any], folder: Path) -> None:
        """Go on with the run that a folder names, or begin one of this name."""
        self._file = folder / FILE
        if self._file.is_file():
            self._id, told = self._file.read_text().split()
            self._told = int(told)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            self._id, self._told = uuid4().hex, -1
            self._keep(-1)
        arguments: dict[str, Any] = {
            "project": self.settings.project or self.benchmark,
            "name": name,
            "group": self.benchmark,
            "config": dict(settings),
            "resume": "allow",
        }
        if self.settings.library == "wandb":
            arguments |= {
                "id": self._id,
                "job_type": job,
                "dir": str(self.results.absolute()),
                "mode": self.settings.mode,
                "reinit": "create_new",  # beside one of the user's own
                "settings": self._library.Settings(
                    init_timeout=SECONDS_TO_START, console="off", silent=True
                ),
            }
        with redirect_stdout(sys.stderr):  # results alone go to standard output
            self._run = self._library.init(**arguments)

    def _keep(self, step: int) -> None:
        """Note up to which step the run is told: after a resumption, steps come once more."""
        self._file.write_text(f"{self._id} {step}\n")

    def _finish(self, well: bool) -> None:
        if self.settings.library == "wandb":
            self._run.finish(exit_code=0 if well else 1)
        else:
            with redirect_stdout(sys.stderr):
                self._run.finish()
