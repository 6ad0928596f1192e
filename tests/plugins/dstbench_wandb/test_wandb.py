"""Runs of Weights & Biases, offline; and how a stand-in for it is called."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from dstbench_wandb import WandB, tracker

from dstbench.contracts import LayerChange
from dstbench.errors import PluginError
from dstbench.execution.machine import environment
from dstbench.grid import Cell
from dstbench.records import Record, Scores

CELL = Cell(
    model="ldm", dataset="digits", sparsifier="rigl", sparsity=0.5, seed=0, training={"steps": 30}
)


class StandIn:
    """The functions of both libraries, which note down how they were called."""

    def __init__(self) -> None:
        self.begun: list[dict[str, Any]] = []
        self.logged: list[tuple[int | None, dict[str, Any]]] = []
        self.ended: list[dict[str, Any]] = []

    def init(self, **arguments: Any) -> Any:
        self.begun.append(arguments)
        return SimpleNamespace(log=self.log, finish=lambda **how: self.ended.append(how))

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        self.logged.append((step, values))

    @staticmethod
    def Image(path: str) -> str:  # noqa: N802
        return f"image {Path(path).name}"

    @staticmethod
    def Settings(**settings: Any) -> dict[str, Any]:  # noqa: N802
        return settings


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    library = StandIn()
    monkeypatch.setattr(tracker, "require", lambda *_: library)
    return library


def told(results: Path, **settings: Any) -> WandB:
    return WandB(WandB.Settings(**settings), "mine", results)


def record() -> Record:
    return Record(
        cell=CELL, status="done", started="2026-01-01T00:00:00+00:00",
        environment=environment(torch.device("cpu")), scores=Scores(fid=12.5),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_cell_that_goes_on_is_one_run_whose_steps_come_once(
    library: StandIn, tmp_path: Path, name: str
) -> None:
    stopped = told(tmp_path, library=name)
    stopped.cell_started(CELL, tmp_path)
    stopped.progressed(10, 0.5, 0.1)
    stopped.progressed(20, 0.25, 0.1)
    again = told(tmp_path, library=name)
    again.cell_started(CELL, tmp_path)
    again.progressed(20, 0.25, 0.1)
    again.layers_changed(25, [LayerChange("0.weight", 0.5, 7)])
    again.progressed(30, 0.125, 0.1)
    again.cell_ended(record(), tmp_path / "samples.png")

    first, second = library.begun
    assert first == second
    assert (first["project"], first["name"], first["group"]) == ("mine", CELL.id, "mine")
    assert first["config"]["training"] == {"steps": 30}
    assert [step for step, _ in library.logged] == [10, 20, 25, 30, 30]
    assert library.logged[2][1] == {"density/0.weight": 0.5, "changed/0.weight": 7}
    last = library.logged[-1][1]
    assert (last["scores/fid"], last["samples"]) == (12.5, "image samples.png")
    assert library.ended == [{"exit_code": 0} if name == "wandb" else {}]


def test_a_benchmark_is_a_run_as_well(library: StandIn, tmp_path: Path) -> None:
    tracker = told(tmp_path, project="theirs", mode="offline")
    tracker.run_started([CELL])
    tracker.run_ended([record()])
    assert [begun["id"] for begun in library.begun] == [library.begun[0]["id"]] * 2
    assert (library.begun[0]["project"], library.begun[0]["mode"]) == ("theirs", "offline")
    assert library.logged == [(None, {"done": 1, "not done": 0})]


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(PluginError, match="needs the package trackio"):
        told(tmp_path, library="trackio")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # their own
def test_offline_runs_are_files_to_be_sent_later(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    tracker = told(tmp_path, mode="offline")
    tracker.cell_started(CELL, tmp_path / "cell")
    tracker.progressed(10, 0.5, 0.1)
    tracker.cell_ended(record(), None)
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    content = file.read_bytes()
    assert b"seconds_per_step" in content
    assert CELL.id.encode() in content
