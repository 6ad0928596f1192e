"""The tracker: an experiment for a benchmark, and in it a run for each cell."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from dstbench.contracts import LayerChange, PluginSettings, Tracker
from dstbench.grid import Cell
from dstbench.plugins import require
from dstbench.records import Record

FILE = "mlflow-run.txt"
"""The file, in the results of a benchmark or of a cell, that names its run."""

PARAMETERS = 100
"""Parameters that can be told at a time."""

LONGEST = 5000
"""Characters of a text at most; MLflow refuses longer ones."""


class MLflow(Tracker["MLflow.Settings"]):
    """Runs of MLflow, one for each cell, below one for the benchmark, in an experiment of its name.

    Needs ``pip install 'dstbench[mlflow]'``; ``mlflow ui``, of the whole package ``mlflow``, shows
    them.
    """

    name = "mlflow"
    packages: ClassVar[Mapping[str, str]] = {"mlflow": "dstbench[mlflow]"}

    class Settings(PluginSettings):
        tracking_uri: str | None = Field(
            None,
            description="server or database, as MLflow names it; none: as the environment variable "
            "MLFLOW_TRACKING_URI says, or the database mlflow.db in the benchmark's results",
        )

    def __init__(self, settings: Settings, benchmark: str, results: Path) -> None:
        super().__init__(settings, benchmark, results)
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing is told to anybody else
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        self._mlflow = require("mlflow", "tracker 'mlflow'", "dstbench[mlflow]")
        self._uri = settings.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        database = f"sqlite:///{results.absolute() / 'mlflow.db'}"
        self._client = self._mlflow.MlflowClient(tracking_uri=self._uri or database)
        self._told = 0
        """The latest step that was told of, by an earlier process perhaps."""

    def run_started(self, cells: Sequence[Cell]) -> None:
        self._begin(self.benchmark, self.results, {})
        self._client.set_tag(self._run, "cells", str(len(cells)))

    def run_ended(self, records: Sequence[Record]) -> None:
        done = [record.status == "done" for record in records]
        self._log({"done": sum(done), "not done": len(done) - sum(done)}, 0)
        self._client.set_terminated(self._run, "FINISHED" if all(done) else "FAILED")

    def cell_started(self, cell: Cell, folder: Path) -> None:
        above = _read(self.results / FILE)
        tags = {"benchmark": self.benchmark}
        self._begin(cell.id, folder, tags | ({"mlflow.parentRunId": above} if above else {}))
        history = self._client.get_metric_history(self._run, "loss")
        self._told = max((metric.step for metric in history), default=-1)
        entities = self._mlflow.entities
        parameters = [entities.Param(key, _text(value)) for key, value in cell.flattened.items()]
        for start in range(0, len(parameters), PARAMETERS):
            self._client.log_batch(self._run, params=parameters[start : start + PARAMETERS])
        self._steps = cell.training["steps"]

    def progressed(self, step: int, loss: float, seconds_per_step: float) -> None:
        if step > self._told:
            self._log({"loss": loss, "seconds_per_step": seconds_per_step}, step)

    def layers_changed(self, step: int, layers: Sequence[LayerChange]) -> None:
        if step > self._told:
            densities = {f"density/{layer.name}": layer.density for layer in layers}
            self._log(densities | {f"changed/{each.name}": each.changed for each in layers}, step)

    def cell_ended(self, record: Record | None, sheet: Path | None) -> None:
        if record is None:
            self._client.set_terminated(self._run, "KILLED")
            return
        self._log(record.numbers, self._steps)
        self._client.set_tag(self._run, "status", record.status)
        if record.error:
            self._client.set_tag(self._run, "error", record.error[-LONGEST:])
        if sheet is not None:
            self._client.log_artifact(self._run, str(sheet))
        self._client.set_terminated(self._run, "FINISHED" if record.status == "done" else "FAILED")

    def _begin(self, name: str, folder: Path, tags: Mapping[str, str]) -> None:
        """Go on with the run that a folder names, or begin one of this name."""
        if run := _read(folder / FILE):
            self._run = run
            self._client.update_run(run, status="RUNNING")
            return
        found = self._client.get_experiment_by_name(self.benchmark)
        experiment = found.experiment_id if found else self._create_experiment()
        self._run = self._client.create_run(experiment, run_name=name, tags=dict(tags)).info.run_id
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(f"{self._run}\n")

    def _create_experiment(self) -> str:
        files = None if self._uri else (self.results.absolute() / "mlflow").as_uri()
        experiment: str = self._client.create_experiment(self.benchmark, artifact_location=files)
        return experiment

    def _log(self, values: Mapping[str, float], step: int) -> None:
        now, metric = int(1000 * time.time()), self._mlflow.entities.Metric
        metrics = [metric(name, float(value), now, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)


def _read(path: Path) -> str:
    """The name of a run; empty where there is none."""
    return path.read_text().strip() if path.is_file() else ""


def _text(value: Any) -> str:
    return (value if isinstance(value, str) else json.dumps(value))[:LONGEST]
