"""Event files for TensorBoard."""

from dstbench import hookimpl
from dstbench.contracts import Tracker
from dstbench_tensorboard.tracker import TensorBoard


@hookimpl
def dstbench_trackers() -> list[type[Tracker]]:
    return [TensorBoard]
