"""One row per cell."""

import json
from collections.abc import Callable
from io import StringIO

import pandas as pd
import pytest

from dstbench.records import Record
from dstbench.report.cells import cell_frame, render_cells

MakeRecord = Callable[..., Record]


def test_settings_that_differ_have_a_column(make_record: MakeRecord) -> None:
    slow = {"training": {"steps": 9, "batch_size": 4}}
    fast = {"training": {"steps": 3, "batch_size": 4}, "sparsifier_settings": {"prune_rate": 0.5}}
    records = [
        make_record(cell=slow),
        make_record("rigl", 0.5, cell=fast),
        make_record("rigl", 0.5, seed=1, cell=fast),
    ]
    frame = cell_frame(records)
    assert list(frame.index) == [record.cell.id for record in records]
    assert list(frame["training.steps"]) == [9, 3, 3]
    assert not {"training.batch_size", "sparsifier_settings.prune_rate"} & set(frame.columns)


def test_versions_differ_only_within_a_plugin(make_record: MakeRecord) -> None:
    def of(sparsifier: str, version: str) -> Record:
        return make_record(sparsifier, 0.5, cell={"versions": {"sparsifier": version}})

    one_each = cell_frame([of("rigl", "dstbench 0.1"), of("mine", "lab 1.0")])
    assert "versions.sparsifier" not in one_each
    two = cell_frame([of("mine", "lab 2.0"), of("mine", "lab 1.0")])
    assert list(two["versions.sparsifier"]) == ["lab 2.0", "lab 1.0"]


def test_every_score_count_and_time(make_record: MakeRecord) -> None:
    done = make_record(
        "static", 0.5, fid=3.25, step=0.125, topology_updates=4, timed=(0.5, 0.25), sized=True
    )
    failed = make_record(seed=1, status="failed", error="Traceback\nKeyError: 'a stone'\n")
    frame = cell_frame([done, failed])
    first, second = (frame.loc[record.cell.id] for record in (done, failed))
    assert (first["fid"], first["training_step_seconds"], first["sample_seconds"]) == (
        3.25,
        0.125,
        0.25,
    )
    assert (first["active_sparsifiable"], first["whole_model_sparsity"]) == (
        50,
        pytest.approx(50 / 120),
    )
    assert (first["extractor"], first["machine"]) == ("lenet", "Abacus 2 (cpu, 2 threads)")
    assert (first["topology_updates"], first["state_bytes"], first["dense_model_bytes"]) == (
        4,
        2500,
        480,
    )
    assert (first["step_time_ratio"], first["step_time_low"], first["step_time_clock"]) == (
        0.5,
        0.48,
        "wall",
    )
    assert (first["sample_time_ratio"], first["kernels"], first["update_time"]) == (
        0.25,
        "masked dense",
        0.4,
    )
    assert pd.isna(second["step_time_ratio"])
    assert (second["status"], second["reason"]) == ("failed", "KeyError: 'a stone'")
    assert pd.isna(second["fid"])


def test_as_text(make_record: MakeRecord) -> None:
    frame = cell_frame([make_record(fid=3.25), make_record("my_idea", 0.5, fid=1 / 3)])
    again = pd.read_csv(StringIO(render_cells(frame, "csv")), index_col="cell")
    assert list(again["fid"]) == list(frame["fid"])
    rows = json.loads(render_cells(frame, "json"))
    assert [row["fid"] for row in rows] == [3.25, pytest.approx(1 / 3)]
    markdown = render_cells(frame, "markdown").splitlines()
    assert markdown[0].startswith("| cell ")
    assert "| 0.333333 |" in markdown[3]
    assert "| kid " not in markdown[0]  # which no cell has
    assert r"my\_idea" in render_cells(frame, "latex")
