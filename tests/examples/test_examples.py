"""The examples as a user has them: installed distributions, beside an installed dstbench."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DISTRIBUTIONS = sorted(path.parent.name for path in EXAMPLES.glob("*/pyproject.toml"))
DSTBENCH = ("-c", "from dstbench.cli import main; main()")

pytestmark = pytest.mark.slow

Python = Callable[..., str]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds all the examples, installed; ``source`` is beside it."""
    folder = tmp_path_factory.mktemp("examples")
    source = folder / "source"  # building writes into the source tree
    shutil.copytree(EXAMPLES, source, ignore=shutil.ignore_patterns("build", "*.egg-info"))
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    places = ["--target", folder / "site-packages", *(source / name for name in DISTRIBUTIONS)]
    command = [sys.executable, "-m", "pip", "install", *options, *places]
    environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run(command, check=True, env=environment)
    return folder / "site-packages"


@pytest.fixture
def python(installed: Path, shared_cache: Path, tmp_path: Path) -> Python:
    """Runs Python with the examples installed; what it prints."""
    known = os.environ.get("PYTHONPATH", "")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(installed), known]).rstrip(os.pathsep),
        "DSTBENCH_CACHE": str(shared_cache),
        "OMP_NUM_THREADS": "1",
    }

    def run(*arguments: str | Path) -> str:
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_examples_own_tests_pass(installed: Path, python: Python, distribution: str) -> None:
    tests = installed.with_name("source") / distribution / "tests"
    assert " passed" in python("-m", "pytest", "-q", "-p", "no:cacheprovider", tests)


def test_they_are_plugged_in(python: Python) -> None:
    printed = python(*DSTBENCH, "plugins")
    for distribution in DISTRIBUTIONS:
        assert distribution in printed
    assert "broken" not in printed


def test_a_benchmark_of_them_ends_in_a_leaderboard(python: Python, tmp_path: Path) -> None:
    python(*DSTBENCH, "run", EXAMPLES / "moons.toml", "--jobs", "1")
    board = pd.read_csv(tmp_path / "results" / "moons" / "leaderboard.csv")
    rows = board.set_index("method")
    assert list(rows.index) == [
        "dense",
        "static",
        "set-decay",
        "set-decay (structure=channels:4)",
    ]
    assert rows["fid_mean"].notna().all()
    # 33,280 sparsifiable weights, half of them active; 320 biases
    assert (rows["active_parameters"] == [33_600] + 3 * [320 + 33_280 / 2]).all()


def test_a_method_without_a_package(python: Python, tmp_path: Path) -> None:
    out = python(EXAMPLES / "own_method.py")
    assert "Results('results/own-method': 10 done)" in out
    assert "samples: (64, 32, 32, 1)" in out
    assert (tmp_path / "results" / "own-method" / "leaderboard.md").exists()
