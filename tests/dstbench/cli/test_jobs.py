"""``dstbench run --jobs 2``: what a run in several processes prints, and leaves behind."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import warm

from dstbench.store import CellFolder

BENCHMARK = (Path(__file__).parents[1] / "toys.toml").read_text()
ENDLESS = """
[[tasks]]
model = "toy-net"
dataset = "toy-images"
[tasks.training]
steps = 1_000_000
"""

Start = Callable[[str], warm.Process]

EXPECTED = (
    "[", "    toy-features features of ", "    stopped after step ", "written: ",
    "stopped; the same command goes on ",
)  # fmt: skip
"""Beginnings of the lines on stderr."""


@pytest.fixture
def start(toys_installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a run of a benchmark, in a process group of its own that hears Ctrl-C."""
    monkeypatch.chdir(tmp_path)
    runs = []

    def start(benchmark: str) -> warm.Process:
        Path("toys.toml").write_text(benchmark)
        run = warm.start("run", "toys.toml", "--jobs", "2")
        runs.append(run)
        return run

    yield start
    for run in runs:
        run.kill()
        run.communicate()


def check_nothing_else_is_told(stderr: str) -> None:
    unexpected = [line for line in stderr.splitlines() if not line.startswith(EXPECTED)]
    assert unexpected == []


@pytest.mark.slow
def test_a_run_that_is_done_ends_without_a_warning(start: Start) -> None:
    run = start(BENCHMARK)
    _, stderr = run.communicate(timeout=120)
    assert run.returncode == 0
    check_nothing_else_is_told(stderr)


@pytest.mark.slow
def test_ctrl_c_ends_all_processes_without_a_warning_and_fails_no_cell(start: Start) -> None:
    """One of the two processes has had a cell to its end, with all that libraries leave in it."""
    run = start(BENCHMARK + ENDLESS)
    deadline = time.monotonic() + 120
    while len(training := _in_training()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    workers = [claim.pid for folder in training if (claim := folder.claim())]
    os.killpg(run.pid, signal.SIGINT)
    _, stderr = run.communicate(timeout=30)
    assert run.returncode == 130
    check_nothing_else_is_told(stderr)
    assert len(workers) == 2
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    for folder in training:
        assert folder.record() is None
        assert not folder.is_held()
        assert folder.claim() is None


def _in_training() -> list[CellFolder]:
    """Folders of the cells without an end that have made a step."""
    folders = [CellFolder(path) for path in Path("results/toys/cells").glob("*")]
    claims = {folder: folder.claim() for folder in folders if folder.version() is None}
    return [folder for folder, claim in claims.items() if claim and claim.step > 12]
