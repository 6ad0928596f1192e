"""Finding a cluster, or starting one; what there is in it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from dstbench.errors import ConfigError
from dstbench.plugins import require

OBJECT_STORE = 128 * 2**20
"""Bytes of memory that a cluster of this machine has for what tasks send each other: little."""


def import_ray() -> Any:
    """The package. Raises :class:`~dstbench.errors.PluginError` if it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    return require("ray", "executor 'ray'", "dstbench[ray]")


@contextmanager
def connected(ray: Any, address: str | None) -> Iterator[None]:
    """A connection to the cluster at that address, or to one that lives as long as it.

    A process that is connected already stays so, to the same cluster.

    Raises :class:`~dstbench.errors.ConfigError` if there is no such cluster.
    """
    if ray.is_initialized():
        yield
        return
    own = {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
    try:
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            **(own if address is None else {}),
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f'executors.ray.address: there is no Ray cluster at "{address or "local"}", or this '
            f"machine is no node of it ({error}); 'ray start --head' starts one, 'ray start "
            "--address=HOST:PORT' makes a machine a node of it"
        ) from error
    _let_print(ray, False)
    try:
        yield
    finally:
        ray.shutdown()
        _let_print(ray, True)


def _let_print(ray: Any, enabled: bool) -> None:
    """Switch on or off that Ray prints what becomes of nodes and processes, thirty lines a death.

    There is no public switch for it; this is the one that its debugger uses.
    """
    with suppress(AttributeError):
        ray._private.worker._worker_logs_enabled = enabled


def gpus_of(ray: Any) -> int:
    """GPUs of a cell that does not say: 1 if the cluster has any, else 0."""
    return int(any(node.get("GPU") for node in _resources(ray)))


def require_room(ray: Any, num_cpus: float, num_gpus: float) -> None:
    """Raise :class:`~dstbench.errors.ConfigError` if no node has as much: Ray waits for one."""
    nodes = [(node.get("CPU", 0), node.get("GPU", 0)) for node in _resources(ray)]
    if not any(cpus >= num_cpus and gpus >= num_gpus for cpus, gpus in nodes):
        there = "; ".join(f"{cpus:g} CPUs, {gpus:g} GPUs" for cpus, gpus in sorted(set(nodes)))
        raise ConfigError(
            f"executors.ray: a cell would take {num_cpus:g} CPUs and {num_gpus:g} GPUs, which no "
            f"node of the cluster has (nodes: {there}); set executors.ray.cpus and "
            "executors.ray.gpus"
        )


def _resources(ray: Any) -> list[dict[str, float]]:
    """The resources of each node that is alive, by Ray's names of them."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
