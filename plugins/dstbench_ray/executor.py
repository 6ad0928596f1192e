"""The executor, and what it asks of a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from dstbench.contracts import Ended, Executor, PluginSettings, RunCell
from dstbench.grid import Cell
from dstbench_ray.cluster import connected, gpus_of, import_ray, require_room
from dstbench_ray.nodes import Conditions
from dstbench_ray.results import Apart, Shared
from dstbench_ray.tasks import Tasks


def _amount(value: float) -> float:
    if value > 1 and value != int(value):
        raise ValueError("above 1 it has to be a whole number")
    return value


def _address(value: str) -> str:
    if "://" in value:
        raise ValueError(
            'should be "auto" or HOST:PORT of the head of a cluster, of which this machine is a '
            f'node ("ray start --address=HOST:PORT" makes it one), is "{value}"'
        )
    return value


Amount = AfterValidator(_amount)


class Ray(Executor):
    """Tasks of a Ray cluster: a running one, or one of this machine alone that is started for them.

    A cell whose node dies is run again on another. One whose process dies, for want of memory
    perhaps, has failed after the third time. Needs ``pip install 'dstbench[ray]'``, here and on
    every node. What was tried are clusters of several nodes on one machine.
    """

    name = "ray"
    packages: ClassVar[Mapping[str, str]] = {"ray": "dstbench[ray]"}

    class Settings(PluginSettings):
        address: Annotated[str, AfterValidator(_address)] | None = Field(
            None,
            description='"auto" (the cluster of which this machine is a node) or HOST:PORT of its '
            "head; none: a cluster of this machine alone, for as long as the run lasts",
        )
        cpus: Annotated[float, Amount] = Field(
            1, gt=0, description="CPU cores, and threads, of each cell"
        )
        gpus: Annotated[float, Amount] | None = Field(
            None,
            ge=0,
            description="GPUs of each cell, or a fraction of one; none: 1 if the cluster has any, "
            "else 0",
        )
        shared_folder: bool = Field(
            True,
            description="whether all nodes see the results folder; false: results are sent to the "
            "machine that runs dstbench",
        )

    trial_settings: ClassVar[Mapping[str, Any]] = {"gpus": 0}

    def run(self, run_cell: RunCell, cells: Sequence[Cell]) -> Iterator[Ended]:
        ray = import_ray()
        return self._run(ray, run_cell, cells) if cells else iter(())

    def _run(self, ray: Any, run_cell: RunCell, cells: Sequence[Cell]) -> Iterator[Ended]:
        settings = self.settings
        place = Shared if settings.shared_folder else Apart
        with connected(ray, settings.address), closing(place(run_cell, cells)) as results:
            gpus = gpus_of(ray) if settings.gpus is None else settings.gpus
            resources = {"num_cpus": settings.cpus, "num_gpus": gpus}
            require_room(ray, **resources)
            threads = max(1, int(settings.cpus)) if run_cell.threads is None else None
            conditions = Conditions(Path.cwd(), threads)
            with closing(Tasks(ray, results, resources, conditions)) as tasks:
                yield from tasks.ended(cells)
