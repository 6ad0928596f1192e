"""Runs of Weights & Biases, or of Trackio."""

from dstbench import hookimpl
from dstbench.contracts import Tracker
from dstbench_wandb.tracker import WandB


@hookimpl
def dstbench_trackers() -> list[type[Tracker]]:
    return [WandB]
