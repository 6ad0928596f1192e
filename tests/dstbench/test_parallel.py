"""Many processes, and many threads."""

import os
import subprocess
import sys

import pytest

from dstbench.parallel import SPINNING, parallel_map, spin_briefly


@pytest.mark.parametrize("in_processes", [False, True])
def test_results_are_in_the_order_of_the_items(in_processes: bool) -> None:
    assert list(parallel_map(abs, range(-3, 3), in_processes=in_processes)) == [3, 2, 1, 0, 1, 2]


def test_processes_are_others_where_they_are_asked_for() -> None:
    def process(_: int) -> int:
        return os.getpid()

    assert set(parallel_map(process, range(3), in_processes=False)) == {os.getpid()}
    assert os.getpid() not in set(parallel_map(process, range(3), in_processes=True))


def test_threads_spin_briefly_unless_the_environment_says_how_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in SPINNING:
        monkeypatch.delenv(name, raising=False)
    spin_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == "1000"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    spin_briefly()
    assert "GOMP_SPINCOUNT" not in os.environ


def test_it_is_set_before_torch_is_imported() -> None:
    """The command line, worker processes, and tasks of Ray and Slurm all import dstbench first."""
    environment = {name: text for name, text in os.environ.items() if name not in SPINNING}
    program = (
        "import os, sys, dstbench; print('torch' in sys.modules, os.environ['GOMP_SPINCOUNT'])"
    )
    command = [sys.executable, "-c", program]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert told.stdout == "False 1000\n"
