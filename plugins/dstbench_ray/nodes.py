"""What is done on a node: one call of these functions is the turn of one cell."""

from __future__ import annotations

import os
import shutil
import socket
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, ParamSpec

from dstbench.cache import Cache
from dstbench.contracts import RunCell
from dstbench.errors import DstbenchError, StoreError
from dstbench.grid import Cell
from dstbench.store import Store
from dstbench_ray.files import File, read, unpack

P = ParamSpec("P")


@dataclass(frozen=True)
class Started:
    """The first thing that is heard of a turn: where it is."""

    node: str
    """Ray's name of the node."""
    host: str


@dataclass(frozen=True)
class Failed:
    """The last thing that is heard of a turn, if something was raised there."""

    error: str


@dataclass(frozen=True)
class Conditions:
    """What a cell would find on the machine that runs dstbench, and is to find on a node."""

    folder: Path
    """The current folder there, to which relative paths relate."""
    threads: int | None
    """CPU threads of the cell; ``None``: ``run_cell`` sets them."""

    def meet(self) -> Started:
        import ray
        import torch

        with suppress(OSError):  # this node may have no such folder
            os.chdir(self.folder)
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        return Started(ray.get_runtime_context().get_node_id(), socket.gethostname())


@lru_cache(maxsize=1)
def _run_cell(given: Any) -> RunCell:
    """What a reference stands for, fetched once for the life of a process."""
    import ray

    run_cell: RunCell = ray.get(given)
    return run_cell


def _told(turn: Callable[P, Iterator[Any]]) -> Callable[P, Iterator[Any]]:
    """The same turn, in which what is raised is told as :class:`Failed`."""

    @wraps(turn)
    def told(*args: P.args, **kwargs: P.kwargs) -> Iterator[Any]:
        try:
            yield from turn(*args, **kwargs)
        except DstbenchError as error:
            yield Failed(str(error))
        except Exception:
            yield Failed(traceback.format_exc())

    return told


@_told
def run_shared(
    given: Sequence[Any], cell: Cell, conditions: Conditions, landmark: Path
) -> Iterator[Any]:
    """Run the cell in a results folder that all nodes see, this one too if it sees the landmark.

    ``given`` holds a reference to ``run_cell``: one that stood alone, Ray would fetch each time.
    """
    started = conditions.meet()
    yield started
    if not landmark.exists():
        raise StoreError(
            f"node {started.host} does not see the results folder {landmark.parent}; mount it "
            "there, or set executors.ray.shared_folder = false"
        )
    _run_cell(*given)(cell)


@_told
def run_apart(
    given: Sequence[Any], cell: Cell, conditions: Conditions, name: str, begun: Sequence[File]
) -> Iterator[Any]:
    """Run the cell in a folder of that name in this node's cache, and hand out what it leaves.

    It stays there until it has been handed out: where a turn is cut off, the next on this node goes
    on.
    """
    yield conditions.meet()
    results = Cache().root / "ray" / name
    folder = Store(results).cell(cell)
    if not folder.checkpoints:
        unpack(begun, folder.path)
    _run_cell(*given).into(results)(cell)
    if folder.version():  # else another process has the cell here, which nobody listens to any more
        for path in folder.files():
            yield read(path)
        shutil.rmtree(folder.path)
