"""docs/python.md: its code runs from top to bottom, and it tells of all that there is."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dstbench
from dstbench.api import Results, TwoResults

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_the_code_runs(tmp_path: Path, shared_cache: Path) -> None:
    script = tmp_path / "page.py"
    script.write_text("\n".join(text for _, text in BLOCKS), encoding="utf-8")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DSTBENCH_CACHE": str(shared_cache)}
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("benchmark: training.step: unknown key; did you mean 'steps'?")
    assert "Results('results/small': 6 done)" in done.stdout
    assert "RigL at S = 0.9 against dense:" in done.stdout
    assert "strongest" in (tmp_path / "results" / "small" / "leaderboard.md").read_text()


def test_all_code_is_python() -> None:
    assert {language for language, _ in BLOCKS} == {"python"}


def test_every_argument_is_told() -> None:
    for function in (dstbench.run, dstbench.plan, dstbench.merge, dstbench.publish):
        for argument in inspect.signature(function).parameters:
            assert f"`{argument}`" in PAGE or f"{argument}=" in PAGE, argument


def test_every_attribute_is_told() -> None:
    public = {name for name in dir(Results) if not name.startswith("_")} | {"records", "name"}
    untold = {name for name in public if f"results.{name}" not in PAGE} - {"written_text"}
    assert not untold


def test_every_attribute_of_a_comparison_is_told() -> None:
    public = {name for name in dir(TwoResults) if not name.startswith("_")}
    untold = {name for name in public | {"first", "second", "names"} if f"both.{name}" not in PAGE}
    assert not untold
