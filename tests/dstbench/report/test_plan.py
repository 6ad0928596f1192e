"""A plan as text."""

import csv
import io
import json
from dataclasses import replace

import pytest

from dstbench.counting.flops import Flops
from dstbench.grid import Cell
from dstbench.planning.planner import Plan
from dstbench.records import Counts
from dstbench.report.plan import render_plan


def planned(sparsifier: str, sparsity: float, seed: int, **fields: object) -> Plan:
    """Of a network of 2,000 of 2,100 parameters sparsifiable, as dense as S is exact."""
    density = 1 - sparsity
    defaults: dict[str, object] = {
        "counts": Counts(
            parameters=2100,
            active_parameters=100 + round(2000 * density),
            sparsifiable=2000,
            active_sparsifiable=round(2000 * density),
            mean_active_sparsifiable=2000 * density,
            inference_flops=1e9 + 3e9 * density,
            dense_inference_flops=4e9,
            sample_flops=50 * (1e9 + 3e9 * density),
            training_flops=8e15 * density,
            dense_training_flops=8e15,
        ),
        "steps": 100_000,
        "sparsifiable_flops": Flops(3e9, 3e9 * density),
        "checkpoint_bytes": 3 * 2**20,
        "kept_bytes": 2**20,
        "kept_ratio": 0.25,
    }
    return Plan(
        Cell(
            model="ldm",
            dataset=str(fields.pop("dataset", "digits")),
            sparsifier=sparsifier,
            sparsity=sparsity,
            seed=seed,
            evaluation={"samples": 10},
        ),
        **defaults | fields,  # type: ignore[arg-type]
    )


PLANS = [
    planned(sparsifier, sparsity, seed)
    for seed in (0, 1)
    for sparsifier, sparsity in (("dense", 0.0), ("static", 0.5), ("static", 0.75))
]

TABLE = """\
# small: the plan

## ldm on digits

2,100 parameters, 2,000 of them sparsifiable; dense, a denoiser call takes 4.00 GFLOPs, 3.00 \
GFLOPs of it in products with sparsifiable weights; a sample takes 50 calls.

| method   |    S |   seeds |   active parameters (×) |   GFLOPs per call (×) |   \
with sparsifiable weights (×) |   training FLOPs (×) |   checkpoint |          kept (×) |
|:---------|-----:|--------:|------------------------:|----------------------:|\
--------------------------------:|---------------------:|-------------:|------------------:|
| dense    |    0 |       2 |          2,100 (×1.000) |         4.00 (×1.000) |                   \
3.00 (×1.000) |    8.00e+15 (×1.000) |     3.00 MiB | 1.00 MiB (×0.250) |
| static   |  0.5 |       2 |          1,100 (×0.524) |         2.50 (×0.625) |                   \
1.50 (×0.500) |    4.00e+15 (×0.500) |     3.00 MiB | 1.00 MiB (×0.250) |
| static   | 0.75 |       2 |            600 (×0.286) |         1.75 (×0.438) |                  \
0.750 (×0.250) |    2.00e+15 (×0.250) |     3.00 MiB | 1.00 MiB (×0.250) |

## In all

| task          |   cells |   training FLOPs |   sampling FLOPs |     kept |   disk at most |
|:--------------|--------:|-----------------:|-----------------:|---------:|---------------:|
| ldm on digits |       6 |         2.80e+16 |         8.25e+12 | 6.00 MiB |       12.0 MiB |
"""


def test_the_table() -> None:
    text = render_plan(PLANS, "table", "small")
    assert text.startswith(TABLE)
    assert text.count("\n- ") == 3
    assert "Times are estimates" not in text


def test_times_and_the_machine_that_they_are_of() -> None:
    timed = [
        planned("dense", 0.0, 0, training_seconds=3 * 86400.0, sampling_seconds=5400.0),
        planned("static", 0.5, 0, training_seconds=86400.0, sampling_seconds=None, problem="why"),
    ]
    lines = render_plan(timed, "table", "small", "Abacus 2 (cpu, 2 threads)").splitlines()
    rows = [line.split("|")[-3:-1] for line in lines if line.startswith(("| dense", "| static"))]
    assert [[text.strip() for text in row] for row in rows] == [
        ["3.00 d", "1.50 h"],
        ["1.00 d", "—"],
    ]
    (total,) = [line.split("|")[-3:-1] for line in lines if line.startswith("| ldm on digits")]
    assert [text.strip() for text in total] == ["4.00 d", "1.50 h"]
    assert "- why" in lines
    (note,) = [line for line in lines if line.startswith("- Times are estimates for dense")]
    assert "with random inputs on Abacus 2 (cpu, 2 threads): masks save no time" in note


def test_what_is_not_known_and_what_was_assumed() -> None:
    unknown: dict[str, object] = {"counts": None, "sparsifiable_flops": None, "kept_bytes": None}
    plans = [
        *(planned("dense", 0.0, seed, **unknown, problem="it does not tell") for seed in (0, 1)),
        *(planned("dense", 0.0, seed, dataset="kanjivg", assumed="9 points") for seed in (0, 1)),
        planned("static", 0.5, 0, dataset="kanjivg", **unknown, problem="no such layer"),
    ]
    lines = render_plan(plans, "table", "small").splitlines()
    rows = [[text.strip() for text in line.split("|")[1:-1]] for line in lines if "|" in line]
    assert rows[2] == ["dense", "0", "2", *["—"] * 6]
    assert rows[6] == ["static", "0.5", "1", *["—"] * 6]
    assert rows[9:] == [
        ["ldm on digits", "2, 2 of them not counted", *["—"] * 4],
        [
            "ldm on kanjivg",
            "3, 1 of them not counted",
            "1.60e+16",
            "4.00e+12",
            "2.00 MiB",
            "8.00 MiB",
        ],
        ["all", "5, 3 of them not counted", "1.60e+16", "4.00e+12", "2.00 MiB", "8.00 MiB"],
    ]
    notes = [line for line in lines if line.startswith("- ")][:3]
    assert notes == ["- it does not tell", "- Counted with 9 points.", "- no such layer"]


def test_one_row_per_cell_to_compute_with() -> None:
    plans = [*PLANS, planned("magran", 0.5, 0, counts=None, sparsifiable_flops=None, problem="why")]
    rows = json.loads(render_plan(plans, "json", "small"))
    assert len(rows) == 7
    assert rows[2] == {
        "cell": plans[2].cell.id,
        "model": "ldm",
        "dataset": "digits",
        "sparsifier": "static",
        "sparsity": 0.75,
        "seed": 0,
        "varied_settings": "",
        "steps": 100_000,
        "parameters": 2100,
        "active_parameters": 600,
        "active_parameters_ratio": 600 / 2100,
        "inference_flops": 1.75e9,
        "inference_flops_ratio": 1.75 / 4,
        "sparsifiable_flops": 0.75e9,
        "sparsifiable_flops_ratio": 0.25,
        "training_flops": 2e15,
        "training_flops_ratio": 0.25,
        "sampling_flops": 10 * 50 * 1.75e9,
        "checkpoint_bytes": 3 * 2**20,
        "kept_bytes": 2**20,
        "kept_bytes_ratio": 0.25,
        "training_seconds": None,
        "sampling_seconds": None,
        "assumed": "",
        "problem": "",
    }
    assert (rows[6]["parameters"], rows[6]["sampling_flops"], rows[6]["problem"]) == (
        None,
        None,
        "why",
    )

    lines = list(csv.DictReader(io.StringIO(render_plan(plans, "csv", "small"))))
    as_text = [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows]
    assert lines == as_text


def test_no_text_of_a_plan_is_a_formula() -> None:
    text = render_plan([replace(PLANS[0], problem="=1+1")], "csv", "small")
    (line,) = csv.DictReader(io.StringIO(text))
    assert line["problem"] == "'=1+1"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.05, "0.0500 s"), (59.9, "59.9 s"), (61, "1.02 min"), (7200, "2.00 h"), (1e8, "1,157 d")],
)
def test_durations(seconds: float, text: str) -> None:
    plans = [planned("dense", 0.0, 0, training_seconds=seconds, sampling_seconds=0.0)]
    table = render_plan(plans, "table", "small", "here")
    (row,) = [line for line in table.splitlines() if line.startswith("| dense")]
    assert [cell.strip() for cell in row.split("|")[-3:-1]] == [text, "0 s"]
