"""The executor: a job array, one cell a job."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, StringConstraints

from dstbench.contracts import Ended, Executor, PluginSettings, RunCell
from dstbench.grid import Cell
from dstbench_slurm.cluster import Cluster, Job
from dstbench_slurm.turn import Turn

FOLDER = "slurm"
"""Name of the folder, in the results folder, of what jobs write."""
OUR_OWN = ("array", "error", "open-mode", "output", "requeue", "no-requeue", "signal")
"""Options of sbatch without which nothing would be heard of jobs, or none resumed."""
TAIL = 4000
"""Characters, from the end, of what a lost job wrote that its error repeats."""


def _not_our_own(name: str) -> str:
    if name in OUR_OWN:
        raise ValueError(f"'{name}' is set by dstbench")
    return name


OptionName = Annotated[
    str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*$"), AfterValidator(_not_our_own)
]
OptionValue = Annotated[str, StringConstraints(pattern=r"^[^\n\r]*$")]


class Slurm(Executor):
    """An array of Slurm's jobs, one for each cell.

    A job that is preempted, that runs into its time limit or whose node dies is queued again, and
    goes on from the cell's checkpoint. Stopping dstbench cancels the jobs. Needs
    ``pip install 'dstbench[slurm]'``, and nodes that see the results folder. What was tried is a
    Slurm of one machine (22.05), where nodes were killed and jobs preempted.
    """

    name = "slurm"
    packages: ClassVar[Mapping[str, str]] = {"submitit": "dstbench[slurm]"}

    class Settings(PluginSettings):
        partition: str | None = Field(None, description="none: the cluster's default")
        minutes: int = Field(
            240,
            ge=5,
            description="time limit of a job; a cell that takes longer goes on in another, "
            "from its latest checkpoint",
        )
        cpus: int = Field(4, ge=1, description="CPU cores, and threads, of each cell")
        gpus: int = Field(1, ge=0, description="GPUs of each cell")
        memory_gb: float | None = Field(
            None, gt=0, description="memory of each cell; none: the cluster's default"
        )
        at_once: int | None = Field(
            None,
            ge=1,
            description="jobs that may run at a time; none: as many as there is room for",
        )
        options: dict[OptionName, OptionValue] = Field(
            {},
            description='further options of sbatch, such as account = "sparse"; "" for those '
            "without a value",
        )

    trial_settings: ClassVar[Mapping[str, Any]] = {"gpus": 0, "cpus": 1, "minutes": 5}
    cluster: ClassVar[type[Cluster]] = Cluster
    seconds_between_looks: ClassVar[float] = 15

    def run(self, run_cell: RunCell, cells: Sequence[Cell]) -> Iterator[Ended]:
        return self._run(self.cluster(), run_cell, cells) if cells else iter(())

    def _run(self, cluster: Cluster, run_cell: RunCell, cells: Sequence[Cell]) -> Iterator[Ended]:
        settings = self.settings
        folder = run_cell.results.absolute() / FOLDER
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # jobs unpickle what is in it
        turn = Turn(run_cell, settings.cpus, settings.minutes)
        running = dict(zip(cluster.submit(folder, settings, turn, cells), cells, strict=True))
        try:
            while running:
                time.sleep(self.seconds_between_looks)
                for job in cluster.over(list(running)):
                    yield Ended(running.pop(job), _error(job))
        finally:
            cluster.cancel(list(running))


def _error(job: Job) -> str | None:
    """Why a job that is over has not come to its end, if it has not."""
    if job.paths.result_pickle.exists():
        error = job.exception()
        return None if error is None else str(error)[-TAIL:]
    written = job.paths.stderr.read_text(errors="replace") if job.paths.stderr.exists() else ""
    return (
        f"job {job.job_id} left Slurm's queue without a result: cancelled, or killed, perhaps for "
        f"want of memory ('sacct -j {job.job_id}' may know more); it wrote:\n{written[-TAIL:]}"
    )
