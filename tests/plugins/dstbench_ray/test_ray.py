"""Cells as tasks of a Ray cluster: three nodes on this machine."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any
from unittest.mock import MagicMock

import pytest
from dstbench_ray import Ray, tasks
from dstbench_ray.nodes import Conditions, Started
from dstbench_ray.results import Apart
from pydantic import ValidationError

from dstbench.contracts import Ended
from dstbench.errors import ConfigError, PluginError
from dstbench.store import Store

sys.path.append(str(Path(__file__).parents[1] / "all_executors"))
from executor_toys import HERE, Notes, errors, is_alive, make_cell, wait_until

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)
        patch.setenv("DSTBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        found = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
        found.add_node(**NODE)
        found.add_node(**NODE)
        yield found
        found.shutdown()


@pytest.fixture
def run_cell(tmp_path: Path) -> Notes:
    return Notes(tmp_path / "results", tmp_path / "notes")


def ray_at(cluster: Any, **settings: Any) -> Ray:
    return Ray(Ray.Settings(**{"address": cluster.address, "gpus": 0} | settings))


def raylet(node: Any) -> int:
    """The process that is a node, and the parent of all that run on it."""
    pid: int = node.all_processes["raylet"][0].process.pid
    return pid


def test_importing_the_plugin_does_not_import_ray() -> None:
    code = "import sys, dstbench_ray; sys.exit('ray' in sys.modules or 'torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_package(run_cell: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    message = "executor 'ray' needs the package ray: pip install 'dstbench[ray]'"
    with pytest.raises(PluginError, match=f"^{re.escape(message)}$"):
        Ray(Ray.Settings()).run(run_cell, [make_cell(0)])


def test_no_cells_start_no_cluster(run_cell: Notes) -> None:
    assert list(Ray(Ray.Settings(address="127.0.0.1:1")).run(run_cell, [])) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cpus": 1.5}, "whole number"),
        ({"gpus": 2.5}, "whole number"),
        ({"cpus": 0}, "greater than 0"),
        ({"address": "ray://head:10001"}, "HOST:PORT"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Ray.Settings(**settings)


def test_as_many_cells_wait_as_are_running_so_that_a_large_cluster_fills_soon() -> None:
    given = tasks.Tasks(MagicMock(), MagicMock(), {"num_gpus": 0}, Conditions(Path(), None))
    turns = {number: tasks.Turn(make_cell(number)) for number in range(500)}
    rooms = []
    for running, waiting in [(0, 0), (0, tasks.WAITING), (4, 63), (200, 100), (200, 300)]:
        given.turns = {n: turns[n] for n in range(running + waiting)}
        for number, turn in given.turns.items():
            turn.latest = Started("node", "host") if number < running else None
        rooms.append(given._room())
    assert rooms == [tasks.WAITING, 0, 1, 100, 0]


@pytest.mark.slow
def test_every_cell_once_on_all_nodes_as_if_it_were_here(
    cluster: Any, run_cell: Notes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DSTBENCH_TOY", "wooden")
    monkeypatch.setattr(tasks, "WAITING", 4)
    monkeypatch.chdir(tmp_path)
    cells = [make_cell(seed) for seed in range(8)]
    ended = list(ray_at(cluster).run(run_cell, cells))
    assert sorted(ended, key=lambda each: each.cell.seed) == [*map(Ended, cells)]
    notes = [note for cell in cells for note in run_cell.of(cell)]
    assert len(notes) == 8
    assert len({note["parent"] for note in notes}) == 3
    for note in notes:
        assert (note["threads"], note["gpus"]) == (1, "")
        assert note["folder"] == str(tmp_path)
        assert note["variable"] == "wooden"
    assert os.listdir(run_cell.results) == ["cells"]


@pytest.mark.slow
def test_a_cell_whose_process_dies_again_and_again_has_failed_and_the_others_go_on(
    cluster: Any, run_cell: Notes
) -> None:
    models = ["good", "dies", "dies-once", "raises", "good", "good"]
    cells = [make_cell(seed, model) for seed, model in enumerate(models)]
    found = errors(list(ray_at(cluster).run(run_cell, cells)))
    assert [len(run_cell.of(cell)) for cell in cells] == [1, tasks.TRIES, 2, 1, 1, 1]
    assert f"its process died {tasks.TRIES} times (on " in (found[1] or "")
    assert "ValueError: out of luck" in (found[3] or "")
    assert [found[seed] for seed in (0, 2, 4, 5)] == [None] * 4


@pytest.mark.slow
def test_a_cell_whose_node_dies_is_run_again_on_another(cluster: Any, run_cell: Notes) -> None:
    nodes = [cluster.add_node(**NODE, num_gpus=1) for _ in range(3)]
    cells = [make_cell(0, "hangs-twice"), make_cell(1), make_cell(2)]

    def kill() -> None:
        for tries, gently in [(1, False), (2, True)]:
            lost = run_cell.wait_for(cells[0], tries)["parent"]
            (node,) = [each for each in nodes if raylet(each) == lost]
            nodes.remove(node)
            cluster.remove_node(node, allow_graceful=gently)

    killer = Thread(target=kill)
    killer.start()
    ended = list(ray_at(cluster, gpus=None).run(run_cell, cells))
    killer.join()
    assert errors(ended) == {0: None, 1: None, 2: None}
    tries, *others = [run_cell.of(cell) for cell in cells]
    assert len({note["parent"] for note in tries}) == 3
    assert [len(each) for each in others] == [1, 1]
    assert {note["gpus"] for note in tries} == {"0"}  # one each, where there are any
    (last,) = nodes
    assert tries[-1]["parent"] == raylet(last)
    cluster.remove_node(last)


@pytest.mark.slow
def test_cells_that_share_a_gpu(cluster: Any, run_cell: Notes) -> None:
    node = cluster.add_node(num_cpus=4, num_gpus=1, object_store_memory=80 * 2**20)
    cells = [make_cell(seed) for seed in range(4)]
    executor = ray_at(cluster, cpus=2, gpus=0.5)
    assert len(list(executor.run(run_cell, cells))) == 4
    notes = [note for cell in cells for note in run_cell.of(cell)]
    assert [(note["gpus"], note["threads"]) for note in notes] == [("0", 2)] * 4
    assert len({note["pid"] for note in notes}) == 2
    cluster.remove_node(node)


@pytest.mark.slow
def test_more_than_any_node_has(cluster: Any, run_cell: Notes) -> None:
    with pytest.raises(ConfigError, match="3 CPUs and 0 GPUs, which no node of the cluster has"):
        list(ray_at(cluster, cpus=3).run(run_cell, [make_cell(0)]))


@pytest.mark.slow
def test_who_stops_listening_leaves_no_process_behind(cluster: Any, run_cell: Notes) -> None:
    cells = [make_cell(0), *[make_cell(seed, "hangs") for seed in range(1, 6)]]
    running = ray_at(cluster).run(run_cell, cells)
    assert next(running) == Ended(cells[0])
    hanging = [run_cell.wait_for(cell) for cell in cells[1:4]]
    running.close()  # type: ignore[attr-defined]
    assert not any(is_alive(note["pid"]) for note in hanging)
    wait_until(lambda: not is_alive(run_cell.of(cells[0])[0]["pid"]), seconds=10)
    assert [len(run_cell.of(cell)) for cell in cells] == [1, 1, 1, 1, 0, 0]


@pytest.mark.slow
def test_a_node_that_does_not_see_the_results_folder(
    cluster: Any, run_cell: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "touch", lambda path: None)
    found = errors(list(ray_at(cluster).run(run_cell, [make_cell(0)])))
    assert f"does not see the results folder {run_cell.results}" in (found[0] or "")
    assert run_cell.of(make_cell(0)) == []


def test_what_goes_along_with_a_checkpoint(run_cell: Notes) -> None:
    cell = make_cell(0)
    apart = Apart(run_cell, [cell])
    folder = Store(run_cell.results).cell(cell)
    folder.path.mkdir(parents=True)

    def sent() -> list[str]:
        _, files = apart.arguments(cell)
        return [file.name for file in files]

    for path in (folder.history, folder.topology):
        path.write_text("step\n")
    assert sent() == []  # it begins anew
    folder.checkpoint.write_text("of the last run")
    assert sent() == ["checkpoint.pt", "history.csv", "topology.csv"]


@pytest.mark.slow
def test_results_that_are_sent(
    cluster: Any, run_cell: Notes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes' folder is this machine's cache."""
    cells = [make_cell(0), make_cell(1, "dies-once"), make_cell(2), make_cell(3)]
    begun, taken = Store(run_cell.results).cell(cells[2]), Store(run_cell.results).cell(cells[3])
    begun.path.mkdir(parents=True)
    begun.checkpoint.write_text("of the last run")
    with taken.locked():
        found = errors(list(ray_at(cluster, shared_folder=False).run(run_cell, cells)))
    assert found == dict.fromkeys(range(4))
    notes = [run_cell.of(cell) for cell in cells]
    assert [len(each) for each in notes[:3]] == [1, 2, 1]
    assert notes[1][0]["parent"] == notes[1][1]["parent"]  # where its checkpoint was
    histories = [
        Store(run_cell.results).cell(cell).history.read_text().removeprefix("checkpoint: ")
        for cell in cells[:3]
    ]
    assert histories == ["none", "of try 1", "of the last run"]
    assert all(Store(run_cell.results).cell(cell).record() for cell in cells[:3])
    assert not begun.checkpoint.exists()
    assert taken.record() is None
    assert not any(note["results"] == str(run_cell.results) for each in notes for note in each)
    node_folder = Path(notes[0][0]["results"])
    assert not [path for path in (node_folder / "cells").iterdir() if path.name != cells[3].id]


ALONE = """
import sys
from pathlib import Path
from dstbench_ray import Ray
from dstbench_ray.results import Apart
from executor_toys import Notes, make_cell

cells = [make_cell(0), make_cell(1, "dies-once"), make_cell(2, "hangs")]
for ended in Ray(Ray.Settings()).run(Notes(Path("results"), Path("notes")), cells):
    print(ended.cell.seed, ended.error, flush=True)
"""


@pytest.mark.slow
def test_a_cluster_of_this_machine_ends_with_the_run_and_is_quiet(tmp_path: Path) -> None:
    """Also where Ctrl-C ends it, which all processes of the terminal get."""
    notes = Notes(tmp_path / "results", tmp_path / "notes")
    process = subprocess.Popen(
        [sys.executable, "-c", ALONE],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), os.environ["PYTHONPATH"]])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    first = [process.stdout.readline() for _ in range(2)]
    hanging = notes.wait_for(make_cell(2, "hangs"))
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert [*first, output] == ["0 None\n", "1 None\n", ""]
    assert errors.startswith("Traceback")
    assert errors.endswith("KeyboardInterrupt\n")
    wait_until(lambda: not is_alive(hanging["pid"]) and not is_alive(hanging["parent"]), 10)
