"""Runs of MLflow."""

from dstbench import hookimpl
from dstbench.contracts import Tracker
from dstbench_mlflow.tracker import MLflow


@hookimpl
def dstbench_trackers() -> list[type[Tracker]]:
    return [MLflow]
