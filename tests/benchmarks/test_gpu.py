"""``make gpu`` in the shrunken form that it has without a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/performance/gpu.py"


@pytest.mark.slow
def test_all_that_it_measures_is_written(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPT, "--results", tmp_path]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}

    subprocess.run(command, check=True, capture_output=True, env=environment, timeout=600)

    folder = tmp_path / "gpu-cpu"
    speed = (folder / "speed.md").read_text()
    assert "no GPU: a shrunken trial" in speed
    assert speed.count("| U-Net, batch 2 ") == 5
    assert speed.count("2:4, sparse tensor cores") == 2
    cells = pd.read_csv(folder / "cells.csv")
    assert list(cells["sparsifier"]) == ["dense", "static"]
    assert (folder / "leaderboard.md").read_text().startswith("# gpu")
    assert (folder / "report.html").exists()
