"""Cells as jobs: by submitit's stand-in for a cluster, and by Slurm itself where there is one."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from dstbench_slurm import Slurm
from dstbench_slurm.cluster import TIMEOUTS, Cluster, Job
from dstbench_slurm.turn import FRUITLESS, Turn
from pydantic import ValidationError

from dstbench.contracts import Ended
from dstbench.errors import ConfigError, PluginError
from dstbench.grid import Cell
from dstbench.store import Store

sys.path.append(str(Path(__file__).parents[1] / "all_executors"))
from executor_toys import HERE, Notes, errors, is_alive, make_cell, wait_until


class LocalCluster(Cluster):
    """A job is a process of this machine, and one that watches it."""

    def submit(self, folder: Path, settings: Any, turn: Turn, cells: Sequence[Cell]) -> list[Job]:
        from submitit import LocalExecutor

        # They would ignore what is ignored here, and could not be cancelled.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        executor = LocalExecutor(folder, max_num_timeout=TIMEOUTS)
        executor.update_parameters(timeout_min=settings.minutes)
        return list(executor.map_array(turn, cells))

    def queue(self, jobs: Sequence[Job]) -> set[str]:
        return {job.job_id for job in jobs if job.state == "RUNNING"}

    def cancel(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.cancel()
        wait_until(lambda: not self.queue(jobs))


@pytest.fixture
def run_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Notes:
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)
    monkeypatch.setattr(Slurm, "seconds_between_looks", 0.3)
    return Notes(tmp_path / "results", tmp_path / "notes")


@pytest.fixture
def jobs_are_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Slurm, "cluster", LocalCluster)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of Slurm's commands, of which each notes down how it was called."""
    folder = tmp_path / "commands"
    folder.mkdir()
    write_command(folder, "sbatch", f'cp "$1" {folder}/script; echo Submitted batch job 7')
    for name in ("squeue", "scancel", "srun"):
        write_command(folder, name, "")
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder


def write_command(folder: Path, name: str, does: str) -> None:
    (folder / name).write_text(f'#!/bin/sh\necho "$@" >> {folder}/{name}.calls\n{does}\n')
    (folder / name).chmod(0o755)


def test_importing_the_plugin_imports_nothing_slow() -> None:
    code = "import sys, dstbench_slurm; sys.exit(bool({'submitit', 'torch'} & {*sys.modules}))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_package(run_cell: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    message = "executor 'slurm' needs the package submitit: pip install 'dstbench[slurm]'"
    with pytest.raises(PluginError, match=f"^{re.escape(message)}$"):
        list(Slurm(Slurm.Settings()).run(run_cell, [make_cell(0)]))


def test_without_slurm(run_cell: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="needs Slurm's command sbatch"):
        list(Slurm(Slurm.Settings()).run(run_cell, [make_cell(0)]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"options": {"array": "0-3"}}, "'array' is set by dstbench"),
        ({"options": {"qos": "long\n#SBATCH --exclusive"}}, "pattern"),
        ({"options": {"a b": "c"}}, "pattern"),
        ({"minutes": 1}, "greater than or equal to 5"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Slurm.Settings(**settings)


def test_what_slurm_is_asked_for(run_cell: Notes, commands: Path) -> None:
    settings = Slurm.Settings(
        partition="gpu",
        minutes=90,
        cpus=6,
        gpus=1,
        memory_gb=7.5,
        at_once=2,
        options={"account": "sparse", "exclusive": ""},
    )
    cells = [make_cell(seed) for seed in range(3)]
    found = errors(list(Slurm(settings).run(run_cell, cells)))
    script = (commands / "script").read_text().splitlines()
    asked = {line.removeprefix("#SBATCH --") for line in script}
    assert asked >= {
        "account=sparse",
        "array=0-2%2",
        "cpus-per-task=6",
        "exclusive",
        "gpus-per-node=1",
        "job-name=dstbench",
        "mem=7680M",
        "partition=gpu",
        "requeue",
        "time=90",
    }
    assert "--cpus-per-task=6 " in script[-1]
    assert (run_cell.results / "slurm").stat().st_mode & 0o777 == 0o700
    assert "job 7_1 left Slurm's queue without a result" in (found[1] or "")  # no squeue knows it


def test_who_stops_listening_cancels_the_jobs(run_cell: Notes, commands: Path) -> None:
    write_command(commands, "squeue", "echo 7_1 7_2")
    running = Slurm(Slurm.Settings()).run(run_cell, [make_cell(seed) for seed in range(3)])
    assert next(running).cell.seed == 0
    running.close()  # type: ignore[attr-defined]
    assert (commands / "scancel.calls").read_text() == "7_1 7_2\n"


def test_jobs_that_slurm_refuses(run_cell: Notes, commands: Path) -> None:
    write_command(commands, "sbatch", "echo sbatch: error: invalid partition >&2; exit 1")
    with pytest.raises(ConfigError, match=r"refused .* invalid partition"):
        list(Slurm(Slurm.Settings()).run(run_cell, [make_cell(0)]))


def test_no_job_is_over_while_slurm_does_not_answer(commands: Path) -> None:
    class Submitted:
        job_id = "7_1"

    assert Cluster().queue([Submitted()]) == set()
    write_command(commands, "squeue", "exit 1")
    assert Cluster().queue([Submitted()]) == {"7_1"}


def test_jobs_that_are_too_short_for_a_checkpoint(run_cell: Notes) -> None:
    pytest.importorskip("submitit")
    cell = make_cell(0)
    folder = Store(run_cell.results).cell(cell)
    folder.path.mkdir(parents=True)
    turn = Turn(run_cell, threads=1, minutes=10)

    def end_job(minutes: float) -> None:
        turn.begin(cell)
        turn.began = time.monotonic() - 60 * minutes
        assert turn.checkpoint(cell).args == (cell,)

    for _ in range(5):
        end_job(1)  # was preempted
    for _ in range(FRUITLESS - 1):
        end_job(9)
    turn.begin(cell)
    folder.checkpoint.touch()
    turn.checkpoint(cell)
    for _ in range(FRUITLESS - 1):
        end_job(9)
    with pytest.raises(ConfigError, match="3 jobs of 10 minutes left no new checkpoint"):
        end_job(9)


@pytest.mark.slow
@pytest.mark.usefixtures("jobs_are_processes")
def test_every_cell_once_each_in_a_process_of_its_own(
    run_cell: Notes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DSTBENCH_TOY", "wooden")
    monkeypatch.chdir(tmp_path)
    models = ["good", "good", "dies", "raises"]
    cells = [make_cell(seed, model) for seed, model in enumerate(models)]
    found = errors(list(Slurm(Slurm.Settings(cpus=2)).run(run_cell, cells)))
    assert found[0] is found[1] is None
    assert "left Slurm's queue without a result" in (found[2] or "")
    assert "ValueError: out of luck" in (found[3] or "")
    notes = [note for cell in cells for note in run_cell.of(cell)]
    assert len(notes) == len({note["pid"] for note in notes}) == 4
    assert {note["threads"] for note in notes} == {2}
    assert {note["folder"] for note in notes} == {str(tmp_path)}
    assert {note["variable"] for note in notes} == {"wooden"}


@pytest.mark.slow
@pytest.mark.usefixtures("jobs_are_processes")
def test_a_job_that_is_preempted_goes_on_later(run_cell: Notes) -> None:
    cells = [make_cell(0, "hangs-twice"), make_cell(1)]

    def preempt() -> None:
        for tries in (1, 2):
            os.kill(run_cell.wait_for(cells[0], tries)["pid"], signal.SIGUSR2)

    thread = Thread(target=preempt)
    thread.start()
    assert errors(list(Slurm(Slurm.Settings()).run(run_cell, cells))) == {0: None, 1: None}
    thread.join()
    assert [len(run_cell.of(cell)) for cell in cells] == [3, 1]


@pytest.mark.slow
@pytest.mark.usefixtures("jobs_are_processes")
def test_who_stops_listening_leaves_no_process_behind(run_cell: Notes) -> None:
    cells = [make_cell(0), make_cell(1, "hangs")]
    running = Slurm(Slurm.Settings()).run(run_cell, cells)
    assert next(running) == Ended(cells[0])
    hanging = run_cell.wait_for(cells[1])
    running.close()  # type: ignore[attr-defined]
    assert not is_alive(hanging["pid"])


@pytest.fixture
def slurm(needs_slurm: None, run_cell: Notes) -> Slurm:
    return Slurm(Slurm.Settings(cpus=1, gpus=0, minutes=5))


def running_jobs() -> list[str]:
    command = ["squeue", "--me", "--array", "--noheader", "--states=R", "--format=%i"]
    return subprocess.check_output(command, text=True).split()


@pytest.mark.slow
def test_real_jobs(slurm: Slurm, run_cell: Notes) -> None:
    models = ["hangs-twice", "good", "dies", "raises"]
    cells = [make_cell(seed, model) for seed, model in enumerate(models)]

    def preempt() -> None:
        for tries in (1, 2):
            # Slurm holds a job back for two minutes that it has put into the queue again.
            wait_until(lambda tries=tries: len(run_cell.of(cells[0])) == tries, 300)
            (job,) = (job for job in running_jobs() if job.endswith("_0"))
            # It may complain of a job that is in the queue again by the time that it looks.
            subprocess.run(["scancel", "--signal=USR2", job], check=False)

    thread = Thread(target=preempt)
    thread.start()
    found = errors(list(slurm.run(run_cell, cells)))
    thread.join()
    assert found[0] is found[1] is None
    assert "without a result" in (found[2] or "")
    assert "ValueError: out of luck" in (found[3] or "")
    assert [len(run_cell.of(cell)) for cell in cells] == [3, 1, 1, 1]


@pytest.mark.slow
def test_real_jobs_are_cancelled(slurm: Slurm, run_cell: Notes) -> None:
    cells = [make_cell(0), make_cell(1, "hangs"), make_cell(2, "hangs")]
    running = slurm.run(run_cell, cells)
    assert next(running) == Ended(cells[0])
    hanging = run_cell.wait_for(cells[1])
    running.close()  # type: ignore[attr-defined]
    wait_until(lambda: not running_jobs() and not is_alive(hanging["pid"]))
