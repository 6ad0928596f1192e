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
    command = [sys.executable, SCRIPT, "--runs", tmp_path / "runs", "--out", tmp_path / "out"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}

    subprocess.run(command, check=True, capture_output=True, env=environment, timeout=600)

    speed = (tmp_path / "out/speed.md").read_text()
    assert "no GPU: a shrunken trial" in speed
    assert speed.count("| U-Net, batch 2 ") == 5
    assert speed.count("2:4, sparse tensor cores") == 2
    cells = pd.read_csv(tmp_path / "out/cells.csv")
    assert list(cells["sparsifier"]) == ["dense", "static"]
    assert (tmp_path / "out/leaderboard.md").read_text().startswith("# gpu")
    assert (tmp_path / "out/report.html").exists()
