"""benchmarks/recompute.py comes to the same comparisons as dstbench, without any of its code."""

import io
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dstbench.records import Quantity, Record, Scores
from dstbench.report.comparisons import Reference
from dstbench.report.writing import write_report

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "recompute.py"

FURTHER = (
    Quantity(name="density", title="density", better="higher"),
    Quantity(name="loss", title="loss", better="lower"),
)


@pytest.fixture
def records(make_record: Callable[..., Record]) -> list[Record]:
    """Two tasks, methods that vary in a setting, a seed that is missing, one that failed, scores
    that are not known or equal, and a method at one sparsity alone."""
    rng = np.random.default_rng(0)
    rows = [("dense", 0.0, None), ("a", 0.5, None), ("a", 0.9, None), ("c", 0.9, None)]
    rows += [("b", sparsity, rate) for sparsity in (0.5, 0.9) for rate in (0.1, 0.5)]
    found = []
    for model, (method, sparsity, rate), seed in product(("ldm", "other"), rows, range(4)):
        if (sparsity, seed) == (0.9, 0):
            continue
        fid = 20 + 30 * sparsity + seed + rng.normal(0, 0.3)
        recall = 0.6 + 0.1 * sparsity + rng.normal(0, 0.01)
        unknown = (method, seed) == ("c", 3)
        others = {"density": 1 - 0.5 * sparsity + rng.normal(0, 0.01), "loss": fid**0.5}
        scores = Scores(fid=None if unknown else fid, kid=0.5, recall=recall, others=others)
        settings = {"prune_rate": rate} if rate else {}
        cell = {"model": model, "sparsifier_settings": settings}
        protocol = {"others": FURTHER}
        found.append(
            make_record(method, sparsity, seed, scores=scores, cell=cell, protocol=protocol)
        )
    failed = make_record("c", 0.5, 0, status="failed", error="no room")
    return [*found, failed]


@pytest.mark.parametrize(
    ("reference", "options"),
    [
        (Reference(), []),
        (Reference("a", 0.2), ["--against", "a", "--margin", "0.2"]),
        (Reference(margin=2.0), ["--margin", "2"]),
    ],
)
def test_it_agrees(
    records: list[Record], tmp_path: Path, reference: Reference, options: list[str]
) -> None:
    write_report(records, tmp_path, {}, {}, reference=reference)
    command = [sys.executable, "-I", str(SCRIPT), str(tmp_path / "cells.csv"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8")
    recomputed = pd.read_csv(io.StringIO(done.stdout))
    told = pd.read_csv(tmp_path / "comparisons.csv")
    pd.testing.assert_frame_equal(recomputed, told, rtol=1e-9)
    assert len(told) > 30
    assert {"fid", "recall", "density", "loss"} <= set(told["score"])
    assert {"▲", "▼", "≈"} & set(told["mark"].dropna())


def test_it_needs_scipy_alone() -> None:
    others = {"dstbench", "pandas", "torch", "statsmodels"}
    code = (
        f"import runpy, sys; runpy.run_path({str(SCRIPT)!r}); "
        f"print({others} & {{name.split('.')[0] for name in sys.modules}})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
