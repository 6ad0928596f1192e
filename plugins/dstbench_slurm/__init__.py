"""Cells as jobs of Slurm."""

from dstbench import hookimpl
from dstbench.contracts import Executor
from dstbench_slurm.executor import Slurm


@hookimpl
def dstbench_executors() -> list[type[Executor]]:
    return [Slurm]
