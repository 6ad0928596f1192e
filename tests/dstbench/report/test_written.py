"""A report that is there is not made again, until something of it changes."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dstbench.api import Results, load_results
from dstbench.records import Record
from dstbench.store import Store

MakeRecord = Callable[..., Record]


@pytest.fixture
def store(tmp_path: Path, make_record: MakeRecord) -> Store:
    store = Store(tmp_path / "results")
    for seed in range(2):
        record = make_record(seed=seed, fid=float(seed))
        store.cell(record.cell).request(record.cell)
        store.cell(record.cell).write_record(record)
    return store


def load(store: Store) -> Results:
    return load_results(store.folder)


def test_a_report_is_known_to_be_written(store: Store) -> None:
    assert load(store).written_text() is None
    load(store).write_report()
    assert load(store).written_text() == load(store).text()


@pytest.mark.parametrize("harm", ["record", "removed", "edited", "note", "margin"])
def test_a_report_of_something_else_is_not_believed(
    store: Store, make_record: MakeRecord, harm: str
) -> None:
    load(store).write_report()
    match harm:
        case "record":
            store.cell(make_record(seed=1).cell).write_record(make_record(seed=1, fid=9.0))
        case "removed":
            (store.folder / "cells.csv").unlink()
        case "edited":
            (store.folder / "leaderboard.md").write_text("mine")
        case "note":
            (store.folder / "written.json").write_text("[" * 1000)
        case "margin":
            assert load_results(store.folder, margin=0.5).written_text() is None
            return
    assert load(store).written_text() is None


NOTHING_TO_DO = """
import sys
from dstbench.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(sorted({"diffusers", "torch._dynamo", "dstbench.execution.pipeline"} & set(sys.modules)))
"""

BENCHMARK = (Path(__file__).parents[1] / "toys.toml").read_text()


@pytest.mark.slow
def test_a_run_with_nothing_to_do_imports_nothing_heavy(
    toys_installed: Path, tmp_path: Path
) -> None:
    (tmp_path / "toys.toml").write_text(BENCHMARK.replace(', "leftmost"', ""))
    ends = [
        subprocess.run(
            [sys.executable, "-c", NOTHING_TO_DO, "run", "toys.toml"],
            cwd=tmp_path, capture_output=True, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    assert [end.returncode for end in ends] == [0, 0], ends
    *table, imported = ends[1].stdout.splitlines()
    assert imported == "[]"
    assert table == ends[0].stdout.splitlines()[:-1]
