"""Runs in a database of MLflow's, read back by its own client."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dstbench.contracts import LayerChange
from dstbench.execution.machine import environment
from dstbench.grid import Cell
from dstbench.records import Record, Scores

mlflow = pytest.importorskip("mlflow")
pytest.importorskip("sqlalchemy")

CELL = Cell(
    model="ldm", dataset="digits", sparsifier="rigl", sparsity=0.5, seed=0, training={"steps": 30}
)


def tracker(results: Path) -> Any:
    from dstbench_mlflow import MLflow

    return MLflow(MLflow.Settings(), "mine", results)


def record() -> Record:
    return Record(
        cell=CELL, status="done", started="2026-01-01T00:00:00+00:00",
        environment=environment(torch.device("cpu")), scores=Scores(fid=12.5),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # their own
def test_cells_are_runs_below_that_of_the_benchmark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is stopped after a checkpoint at step 10, and goes on."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run, folder, sheet = tracker(tmp_path), tmp_path / "cell", tmp_path / "samples.png"
    folder.mkdir()
    sheet.write_bytes(b"picture")
    run.run_started([CELL])
    stopped = tracker(tmp_path)
    stopped.cell_started(CELL, folder)
    stopped.progressed(10, 0.5, 0.1)
    stopped.progressed(20, 0.25, 0.1)
    stopped.cell_ended(None, None)
    again = tracker(tmp_path)
    again.cell_started(CELL, folder)
    again.layers_changed(20, [LayerChange("0.weight", 0.5, 7)])
    again.progressed(20, 0.25, 0.1)
    again.layers_changed(25, [LayerChange("0.weight", 0.5, 8)])
    again.progressed(30, 0.125, 0.1)
    again.cell_ended(record(), sheet)
    run.run_ended([record()])

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("mine")
    runs = {each.info.run_name: each for each in client.search_runs([experiment.experiment_id])}
    benchmark, told = runs["mine"], runs[CELL.id]
    assert told.data.tags["mlflow.parentRunId"] == benchmark.info.run_id
    assert (benchmark.info.status, told.info.status) == ("FINISHED", "FINISHED")
    history = client.get_metric_history(told.info.run_id, "loss")
    assert [(each.step, each.value) for each in history] == [(10, 0.5), (20, 0.25), (30, 0.125)]
    assert told.data.metrics["scores/fid"] == 12.5
    assert told.data.metrics["changed/0.weight"] == 8
    assert told.data.params["training.steps"] == "30"
    assert [each.path for each in client.list_artifacts(told.info.run_id)] == ["samples.png"]
