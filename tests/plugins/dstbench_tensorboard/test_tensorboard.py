"""Event files, read back by TensorBoard's own reader."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dstbench.contracts import LayerChange
from dstbench.execution.machine import environment
from dstbench.grid import Cell
from dstbench.plugins.registry import load_plugins
from dstbench.records import Record, Scores

pytest.importorskip("tensorboard")


def tracker(results: Path, **settings: Any) -> Any:
    from dstbench_tensorboard import TensorBoard

    return TensorBoard(TensorBoard.Settings(**settings), "mine", results)


def cell() -> Cell:
    return Cell(
        model="ldm", dataset="digits", sparsifier="rigl", sparsity=0.5, seed=0,
        training={"steps": 30}, sparsifier_settings={"prune_rate": 0.25},
    )  # fmt: skip


def record() -> Record:
    import torch

    return Record(
        cell=cell(), status="done", started="2026-01-01T00:00:00+00:00",
        environment=environment(torch.device("cpu")), scores=Scores(fid=12.5),
    )  # fmt: skip


def read(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    return events.Reload()


def scalars(events: Any, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events.Scalars(tag)]


def train(told: Any, *steps: int) -> None:
    for step in steps:
        told.layers_changed(step - 1, [LayerChange("0.weight", 0.5, step)])
        told.progressed(step, 1 / step, 0.25)


def test_a_cell_is_written_into_its_folder(tmp_path: Path) -> None:
    folder, sheet = tmp_path / "cells" / "one", tmp_path / "samples.png"
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(pixels).save(sheet)
    told = tracker(tmp_path)
    told.cell_started(cell(), folder)
    train(told, 10, 20, 30)
    told.cell_ended(record(), sheet)

    events = read(folder)
    assert [step for step, _ in scalars(events, "loss")] == [10, 20, 30]
    assert scalars(events, "changed/0.weight") == [(9, 10.0), (19, 20.0), (29, 30.0)]
    assert scalars(events, "density/0.weight")[0] == (9, 0.5)
    assert scalars(events, "scores/fid") == [(30, 12.5)]
    (image,) = events.Images("samples")
    assert (image.width, image.height) == (8, 8)
    (settings,) = events.Tensors("settings/text_summary")
    assert b'"prune_rate": 0.25' in settings.tensor_proto.string_val[0]
    assert "_hparams_/session_start_info" in events.summary_metadata


def test_a_killed_cell_shows_each_step_once(tmp_path: Path) -> None:
    """It goes on from a checkpoint after step 10, with the same numbers."""
    killed = tracker(tmp_path)
    killed.cell_started(cell(), tmp_path)
    train(killed, 10, 20)
    again = tracker(tmp_path)
    again.cell_started(cell(), tmp_path)
    train(again, 20, 30)
    again.cell_ended(None, None)
    events = read(tmp_path)
    assert [step for step, _ in scalars(events, "loss")] == [10, 20, 30]
    assert [step for step, _ in scalars(events, "density/0.weight")] == [9, 19, 29]


def test_another_folder_has_one_for_each_cell(tmp_path: Path) -> None:
    told = tracker(tmp_path / "results" / "mine", folder="../all")
    told.cell_started(cell(), tmp_path / "cell")
    told.progressed(10, 0.5, 0.1)
    told.cell_ended(None, None)
    assert scalars(read(tmp_path / "results" / "all" / cell().id), "loss") == [(10, 0.5)]


def test_it_is_plugged_in() -> None:
    assert "tensorboard" in load_plugins().names("tracker")
