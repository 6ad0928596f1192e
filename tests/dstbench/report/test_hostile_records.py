"""Records that make no sense, or would have readers do something."""

import csv
import math
import os
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest

from dstbench.errors import StoreError
from dstbench.records import Record
from dstbench.report.results import Results
from dstbench.store import Store
from dstbench.store.layout import Layout

MakeRecord = Callable[..., Record]


@pytest.mark.parametrize(
    ("part", "numbers"),
    [
        ("counts", {"parameters": 0}),
        ("counts", {"sparsifiable": 0}),
        ("counts", {"dense_training_flops": 0.0}),
        ("counts", {"training_flops": 1e308, "dense_training_flops": 5e-324}),
        ("counts", {"inference_flops": 0.0}),
        ("counts", {"inference_flops": math.inf, "sample_flops": math.inf}),
        ("sizes", {"dense_state_bytes": 0}),
    ],
)
def test_a_record_that_makes_no_sense_costs_its_own_row(
    make_record: MakeRecord,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    part: str,
    numbers: dict[str, float],
) -> None:
    good, odd = make_record(fid=1, sized=True), make_record("static", 0.5, fid=2, sized=True)
    broken = getattr(odd, part).model_copy(update=numbers)
    odd = odd.model_copy(update={part: broken})
    results = Results(Store(tmp_path), [good, odd], "toys", Layout())
    assert "| dense" in results.text()
    results.write_report()
    assert results.records == [good]
    (message,) = caplog.messages
    assert message.startswith(f"cell {odd.cell.id}: its record makes no sense and is left out")


@pytest.mark.parametrize(
    "text",
    [
        "", "step,loss\n1,2\n", "\xff\x00",
        "step,loss,seconds_per_step,topology_updates\n1,x,1,0\n",
        f"step,loss,seconds_per_step,topology_updates\n{10**30},1,1,0\n",
        "step,layer,density,changed\n1,a,<b>,0\n", "step,layer,density,changed\n,a,1,0\n",
    ],
)  # fmt: skip
def test_a_damaged_history_costs_no_report(
    make_record: MakeRecord, tmp_path: Path, text: str
) -> None:
    record = make_record("rigl", 0.5, fid=1)
    results = Results(Store(tmp_path), [record], "toys", Layout())
    folder = Store(tmp_path).cell(record.cell)
    folder.path.mkdir(parents=True)
    for path, read in ((folder.history, results.history), (folder.topology, results.topology)):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(StoreError, match="cannot be read"):
            read(record.cell)

    results.write_report()

    assert (tmp_path / "report.html").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_pipes_are_not_waited_for(make_record: MakeRecord, tmp_path: Path) -> None:
    record = make_record(fid=1)
    folder = Store(tmp_path).cell(record.cell)
    folder.path.mkdir(parents=True)
    for path in (folder.history, folder.topology, tmp_path / "layout.json"):
        os.mkfifo(path)
    assert Store(tmp_path).layout() == Layout()
    results = Results(Store(tmp_path), [record], "toys", Layout())
    for read in (results.history, results.topology):
        with pytest.raises(StoreError, match="a pipe, no regular file"):
            read(record.cell)


def test_no_text_is_a_formula(make_record: MakeRecord, tmp_path: Path) -> None:
    from dstbench.report.cells import render_cells

    formula = '=HYPERLINK("http://example.org")'
    records = [
        make_record(seed=0, fid=-1.5, environment={"cpu": formula}),
        make_record(seed=1, status="failed", error="+1"),
        make_record(seed=2, status="failed", error="@SUM(1)"),
    ]
    results = Results(Store(tmp_path), records, "toys", Layout())
    for text in (render_cells(results.cells, "csv"), results.text("csv")):
        rows = list(csv.reader(StringIO(text)))
        cells = [cell for row in rows for cell in row]
        odd = [cell for cell in cells if cell.startswith(("=", "+", "@"))]
        assert odd == []
        assert any(cell.startswith("'=HYPERLINK") for cell in cells)
        assert any(cell.startswith("-1.5") for cell in cells)  # a number
