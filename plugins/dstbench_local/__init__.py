"""Cells in processes of this machine."""

from dstbench import hookimpl
from dstbench.contracts import Executor
from dstbench_local.executor import Local


@hookimpl
def dstbench_executors() -> list[type[Executor]]:
    return [Local]
