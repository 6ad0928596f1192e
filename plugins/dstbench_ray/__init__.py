"""Cells as tasks of a Ray cluster."""

from dstbench import hookimpl
from dstbench.contracts import Executor
from dstbench_ray.executor import Ray


@hookimpl
def dstbench_executors() -> list[type[Executor]]:
    return [Ray]
