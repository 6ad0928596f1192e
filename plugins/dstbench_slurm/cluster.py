"""Slurm, as far as it is needed: submitit submits, squeue and scancel do the rest."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dstbench.errors import ConfigError
from dstbench.grid import Cell
from dstbench.plugins import require
from dstbench_slurm.turn import Turn

Job = Any
"""A job of submitit's."""

COMMANDS = ("sbatch", "squeue", "scancel", "srun")
TIMEOUTS = 1_000_000
"""Time limits that a job may run into. Whether there is any use in another job, the turn says."""


class Cluster:
    """The cluster that this machine can submit jobs to.

    submitit would ask sacct what has become of a job. The queue tells as much where there is no
    accounting, and does not take a job for lost that is about to be queued again.
    """

    def __init__(self) -> None:
        self.missing: set[Job] = set()
        """Jobs that at the last look were not in the queue, and had left no result."""

    def submit(self, folder: Path, settings: Any, turn: Turn, cells: Sequence[Cell]) -> list[Job]:
        """A job for each cell, which writes into that folder.

        Raises:
            PluginError: if the package submitit is not installed.
            ConfigError: if there is no Slurm here, or it refuses the jobs.
        """
        submitit = require("submitit", "executor 'slurm'", "dstbench[slurm]")
        for command in COMMANDS:
            if shutil.which(command) is None:
                raise ConfigError(
                    f"executor 'slurm' needs Slurm's command {command}, which is not here; run "
                    "dstbench where jobs can be submitted, or choose another executor"
                )
        executor = submitit.SlurmExecutor(folder, max_num_timeout=TIMEOUTS)
        try:
            executor.update_parameters(**parameters(settings, len(cells)))
            jobs: list[Job] = executor.map_array(turn, cells)
        except submitit.core.utils.FailedJobError as error:
            raise ConfigError(f"Slurm refused the jobs of executors.slurm: {error}") from error
        return jobs

    def over(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs that have left a result, or left the queue without one."""
        queue = self.queue(jobs)
        files = set(os.listdir(jobs[0].paths.folder))  # a listing is fresh, also over a network
        finished = [job for job in jobs if job.paths.result_pickle.name in files]
        gone = {job for job in jobs if job.job_id not in queue}.difference(finished)
        lost = [job for job in jobs if job in gone & self.missing]
        self.missing = gone
        return finished + lost

    def queue(self, jobs: Sequence[Job]) -> set[str]:
        """The names of the jobs that are waiting or running; of all where Slurm does not answer."""
        command = ["squeue", "--me", "--array", "--noheader", "--format=%i"]
        answer = subprocess.run(command, capture_output=True, text=True)
        return {job.job_id for job in jobs} if answer.returncode else set(answer.stdout.split())

    def cancel(self, jobs: Sequence[Job]) -> None:
        if jobs:
            subprocess.run(["scancel", *(job.job_id for job in jobs)], capture_output=True)


def parameters(settings: Any, jobs: int) -> dict[str, Any]:
    """What submitit's ``SlurmExecutor`` is to ask of Slurm."""
    wanted = {
        "job_name": "dstbench",
        "partition": settings.partition,
        "time": settings.minutes,
        "cpus_per_task": settings.cpus,
        "srun_args": [f"--cpus-per-task={settings.cpus}"],  # it takes no more from sbatch
        "gpus_per_node": settings.gpus or None,
        "mem": settings.memory_gb and f"{round(1024 * settings.memory_gb)}M",
        "array_parallelism": settings.at_once or jobs,
        "additional_parameters": {
            "requeue": True,  # where the node died, too
            **{name: value or True for name, value in settings.options.items()},
        },
    }
    return {name: value for name, value in wanted.items() if value is not None}
