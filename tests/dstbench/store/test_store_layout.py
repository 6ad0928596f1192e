"""The order of a leaderboard's rows, and what is remembered of it."""

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

from dstbench.records import Record
from dstbench.settings import ReportSettings
from dstbench.store.layout import Layout
from dstbench.store.store import Store

MakeRecord = Callable[..., Record]
LAYOUT = Layout(
    tasks=("ldm on faces", "ldm on digits"),
    sparsifiers=("static", "rigl", "dense"),
    report=ReportSettings(margin=0.1),
)


def test_records_have_one_order_however_they_come(make_record: MakeRecord) -> None:
    def rigl(sparsity: float, **settings: object) -> Record:
        given = {"zeal": 1} | settings
        return make_record("rigl", sparsity, cell={"sparsifier_settings": given})

    ordered = [
        make_record("dense", cell={"dataset": "faces"}),
        make_record("gmp", 0.5, cell={"dataset": "faces"}),
        make_record("dense"),
        make_record("dense", seed=1),
        make_record("static", 0.5),
        make_record("static", 0.9),
        rigl(0.5),
        rigl(0.9),
        *(rigl(sparsity, prune_rate=r) for r in (0.05, 0.3, 10.0) for sparsity in (0.5, 0.9)),
        rigl(0.5, prune_rate=10.0, structure="2:4"),
        rigl(0.5, prune_rate=10.0, structure="channels:4"),
        make_record("gmp", 0.5),  # which only a command line named
        make_record("magran", 0.5),
        make_record("magran", 0.9, cell={"versions": {"sparsifier": "mine 2"}}),
        make_record("dense", cell={"dataset": "another"}),
    ]
    for seed in range(5):
        shuffled = Random(seed).sample(ordered, len(ordered))
        assert LAYOUT.arranged(shuffled) == ordered


def test_without_a_layout_there_is_an_order_too(make_record: MakeRecord) -> None:
    records = [make_record("static", 0.5), make_record("rigl", 0.5), make_record("dense")]
    assert [r.cell.sparsifier for r in Layout().arranged(records)] == ["dense", "rigl", "static"]


def test_a_layout_is_remembered(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.layout() == Layout()
    store.write_layout(LAYOUT)
    assert store.layout() == LAYOUT
    (tmp_path / "layout.json").write_text('{"report": {"margin": -1}}')
    assert store.layout() == Layout()
    (tmp_path / "layout.json").unlink()
    os.mkfifo(tmp_path / "layout.json")  # opening it would wait for its other end
    assert store.layout() == Layout()
