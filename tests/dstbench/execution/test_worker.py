"""Running cells wherever there is room, with the toys."""

import json
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from warm import Process, start

from dstbench.contracts import Ended, Executor, PluginSettings, RunCell
from dstbench.execution import in_this_process
from dstbench.execution import worker as worker_module
from dstbench.execution.scheduler import TRIES, Scheduler
from dstbench.execution.worker import RunOptions, Worker
from dstbench.grid import Cell
from dstbench.store import CellFolder, Store
from dstbench.store.claim import Claim

MakeCell = Callable[..., Cell]


def worker(scheduler: Scheduler, cells: Sequence[Cell], minutes: float | None = None) -> Worker:
    """What an executor would be given for the cells."""
    versions = {cell.id: scheduler.store.cell(cell).version() for cell in cells}
    options = RunOptions(threads=1, minutes=minutes)
    return Worker(scheduler.store, scheduler.pipeline, options, versions)


def test_pickled_it_runs_the_cell_in_the_same_folder(
    scheduler: Scheduler, make_cell: MakeCell
) -> None:
    cell = make_cell()
    other = pickle.loads(pickle.dumps(worker(scheduler, [cell], minutes=60)))
    assert other.pipeline is not scheduler.pipeline
    assert (other.results, other.device) == (scheduler.store.folder, "cpu")
    assert (other.minutes, other.threads) == (60, 1)
    other(cell)
    record = scheduler.store.cell(cell).record()
    assert record is not None
    assert record.status == "done"


def test_a_process_loads_its_plugins_once(scheduler: Scheduler, make_cell: MakeCell) -> None:
    first, second = (pickle.loads(pickle.dumps(worker(scheduler, [make_cell()]))) for _ in range(2))
    assert first.pipeline is second.pipeline


def test_the_size_of_a_network_is_told_where_its_plugins_know(
    scheduler: Scheduler, make_cell: MakeCell, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_cell, cell = worker(scheduler, [make_cell()]), make_cell()
    assert run_cell.parameters(cell) is None  # the toys need data to tell
    monkeypatch.setattr(worker_module, "parameters", lambda cell, plugins: 7)
    assert run_cell.parameters(make_cell(seed=1)) is None  # asked once for each network
    assert worker(scheduler, [cell]).parameters(cell) == 7


def test_into_another_folder(scheduler: Scheduler, make_cell: MakeCell, tmp_path: Path) -> None:
    cell = make_cell()
    worker(scheduler, [cell]).into(tmp_path / "elsewhere")(cell)
    assert Store(tmp_path / "elsewhere").cell(cell).record() is not None
    assert scheduler.store.cell(cell).record() is None


def test_another_process_may_choose_another_device(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that submits jobs may have no GPU, where they have some."""
    place = scheduler.store, scheduler.pipeline
    chosen, left = Worker(*place), Worker(*place, RunOptions(device="auto"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert [pickle.loads(pickle.dumps(each)).device for each in (chosen, left)] == ["cpu", "cuda"]
    assert left.device == "cpu"


def test_a_cell_that_was_run_meanwhile_is_left_as_it_is(
    scheduler: Scheduler, make_cell: MakeCell
) -> None:
    cell = make_cell(training={"batch_size": 4, "steps": 2})
    late = worker(scheduler, [cell])
    worker(scheduler, [cell])(cell)
    version = scheduler.store.cell(cell).version()
    late(cell)
    assert scheduler.store.cell(cell).version() == version is not None


def test_a_cell_whose_process_died_has_failed(scheduler: Scheduler, make_cell: MakeCell) -> None:
    class Dies(Executor):
        name = "dies"

        def run(self, run_cell: RunCell, cells: Sequence[Cell]) -> Iterator[Ended]:
            for cell in cells:
                yield Ended(cell, "its process died: SIGSEGV")

    (record,) = scheduler.run([make_cell()], executor=Dies(PluginSettings()))
    assert (record.status, record.error) == ("failed", "its process died: SIGSEGV")


def test_a_dead_cell_that_another_process_has_is_not_touched(
    scheduler: Scheduler, make_cell: MakeCell
) -> None:
    cell = make_cell()
    late = worker(scheduler, [cell])
    with scheduler.store.cell(cell).locked():
        late.mark_failed(cell, "its process died")
    worker(scheduler, [cell])(cell)
    late.mark_failed(cell, "its process died")  # by then the other one was done
    record = scheduler.store.cell(cell).record()
    assert record is not None
    assert record.status == "done"


def test_a_cell_that_never_leaves_a_record_is_given_up(
    scheduler: Scheduler, make_cell: MakeCell, texts: list[str]
) -> None:
    calls = []

    class Forgets(Executor):
        name = "forgets"

        def run(self, run_cell: RunCell, cells: Sequence[Cell]) -> Iterator[Ended]:
            calls.append(list(cells))
            yield from map(Ended, cells)

    cell = make_cell()
    scheduler.run([cell], executor=Forgets(PluginSettings()))
    assert calls == [[cell]] * TRIES
    assert texts == [f"cell {cell.id} was run {TRIES} times without a record"]


def test_threads_take_turns(scheduler: Scheduler, make_cell: MakeCell, tmp_path: Path) -> None:
    """They share the generators that weights are drawn from."""
    cells = [make_cell(seed=seed, training={"steps": 30}) for seed in range(3)]
    alone = Scheduler(Store(tmp_path / "alone"), scheduler.pipeline).run(cells)
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(worker(scheduler, cells), cells))
    together = [scheduler.store.cell(cell).record() for cell in cells]
    assert [record and record.scores for record in together] == [each.scores for each in alone]


def test_who_cannot_write_goes_on(scheduler: Scheduler, make_cell: MakeCell) -> None:
    cells = [make_cell(), make_cell("static", 0.5)]
    path = scheduler.store.cell(cells[0]).path
    path.parent.mkdir(parents=True)
    path.write_text("in the way")
    first, second = in_this_process(worker(scheduler, cells), cells)
    assert "cannot be written to" in (first.error or "")
    assert second == Ended(cells[1])


HANGS = """
import time
import torch
from dstbench import hookimpl
from dstbench.contracts import Dataset
from dstbench.sparsity import Sparsifier

class Hangs(Sparsifier):
    '''Never comes back.'''
    name = "hangs"
    def attach(self, *args, **kwargs):
        time.sleep(600)

class Crashes(Sparsifier):
    '''Takes its process with it.'''
    name = "crashes"
    def attach(self, *args, **kwargs):
        import os
        os._exit(11)

class Stumbles(Sparsifier):
    '''Falls.'''
    name = "stumbles"
    def attach(self, *args, **kwargs):
        raise KeyError("a stone")

class Tides(Dataset):
    '''Never comes in.'''
    name = "tides"
    kind = "images"
    def load(self, workspace):
        time.sleep(600)

@hookimpl
def dstbench_sparsifiers():
    return [Hangs, Crashes, Stumbles]

@hookimpl
def dstbench_datasets():
    return [Tides]
"""

BENCHMARK = """
name = "toys"
[grid]
seeds = [0, 1]
sparsities = [0.5]
sparsifiers = ["dense", "static", "rigl"]
[[tasks]]
model = "toy-net"
dataset = "toy-images"
[sparsifiers.rigl]
exploration_frequency = 3
[training]
steps = 30
batch_size = 6
[evaluation]
extractor = "toy-features"
samples = 9
kid_subsets = 2
[executors.local]
jobs = 1
"""


@pytest.fixture
def folder(folder: Path) -> Path:
    """The current folder, with toys.toml in it."""
    (folder / "toys.toml").write_text(BENCHMARK)
    return folder


def scores(results: Path) -> dict[str, dict[str, object]]:
    """By cell id: all in its record that is the same however often and wherever it is run."""
    same = ("status", "scores", "counts", "validation_loss", "topology_updates")
    records = {
        path.parent.name: json.loads(path.read_text())
        for path in results.glob("cells/*/record.json")
    }
    return {name: {key: record[key] for key in same} for name, record in records.items()}


def finish(process: Process) -> str:
    """What it said on stderr, after it ended well."""
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert "# toys" in out
    return err


@pytest.mark.slow
def test_processes_that_share_a_folder_share_the_work(folder: Path) -> None:
    """Two runs at once, one of them with two processes, and then one alone, elsewhere."""
    first, second = start("run", "toys.toml", "--jobs", "2"), start("run", "toys.toml")
    said = finish(first) + finish(second)
    assert said.count("toy-features features of 26 images") == 1  # which all cells share
    finish(start("run", "toys.toml", "--results", "alone"))
    results = folder / "results" / "toys"
    assert len(scores(results)) == 6
    assert scores(results) == scores(folder / "alone" / "toys")
    for history in results.glob("cells/*/history.csv"):
        steps = [line.split(",")[0] for line in history.read_text().splitlines()[1:]]
        assert steps == ["30"]
    status = start("status", "results/toys")
    out, _ = status.communicate(timeout=60)
    assert out.splitlines()[-1] == "6 cells: 6 done"


@pytest.mark.slow
def test_a_cell_of_a_killed_process_is_taken_over_from_its_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = BENCHMARK.replace("steps = 30", "steps = 30\ncheckpoint_every = 5")
    (folder / "toys.toml").write_text(text)
    finish(start("run", "toys.toml", "--results", "alone"))
    with monkeypatch.context() as patch:
        patch.setenv("TOYS_STOP", "SIGKILL:17")
        killed = start("run", "toys.toml", "--only", "sparsifier=rigl", "--only", "seed=0")
        killed.communicate(timeout=100)
    assert killed.returncode == -signal.SIGKILL
    out, _ = start("status", "results/toys").communicate(timeout=60)
    assert out.splitlines()[-1] == "1 cells: 1 waiting"
    finish(start("run", "toys.toml"))
    assert scores(folder / "results" / "toys") == scores(folder / "alone" / "toys")


@pytest.mark.slow
def test_a_cell_that_hangs_raises_or_kills_its_process_fails_alone(
    folder: Path, plug_in: Callable[[str, str], None]
) -> None:
    plug_in("ill", HANGS)
    text = BENCHMARK.replace('"static", "rigl"', '"static", "hangs", "stumbles", "crashes"')
    text = text.replace("seeds = [0, 1]", "seeds = [0]")
    text = text.replace("[sparsifiers.rigl]\nexploration_frequency = 3\n", "")
    text += """
[[tasks]]
model = "toy-net"
dataset = "tides"
[execution]
minutes_per_cell = 0.2
"""
    (folder / "toys.toml").write_text(text)
    process = start("run", "toys.toml", "--jobs", "2")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 1, err
    assert "8 of 10 cells have no result" in err
    records = [json.loads(p.read_text()) for p in folder.glob("results/toys/cells/*/record.json")]
    tides = [record for record in records if record["cell"]["dataset"] == "tides"]
    assert {record["status"] for record in tides} == {"failed"}
    assert all("not done within 0.2 minutes" in record["error"] for record in tides)
    records = [record for record in records if record not in tides]
    found = {record["cell"]["sparsifier"]: record for record in records}
    assert {name: record["status"] for name, record in found.items()} == {
        "dense": "done", "static": "done",
        "hangs": "failed", "stumbles": "failed", "crashes": "failed",
    }  # fmt: skip
    assert "KeyError: 'a stone'" in found["stumbles"]["error"]
    assert found["crashes"]["error"] == "its process died: exit code 11"
    stopped = found["hangs"]["error"]
    assert "stopped by the benchmark's time limit" in stopped
    assert "ill.py" in stopped
    assert "in attach" in stopped
    assert "hangs" in out


@pytest.mark.slow
def test_status_while_it_runs(folder: Path) -> None:
    text = BENCHMARK.replace("steps = 30", "steps = 1_000_000")
    (folder / "toys.toml").write_text(text)
    process = start("run", "toys.toml", "--jobs", "2")
    try:
        for _ in range(100):
            time.sleep(0.5)
            claims = list(folder.glob("results/toys/cells/*/running.json"))
            if len(claims) == 2 and all(json.loads(c.read_text())["step"] for c in claims):
                break
        out, _ = start("status", "results/toys").communicate(timeout=60)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    assert out.splitlines()[-1] in (
        "6 cells: 2 running, 4 waiting",
        "6 cells: 4 waiting, 2 running",
    )
    running = [line for line in out.splitlines() if " running " in line]
    assert all(f"{os.uname().nodename}:" in line and "/1000000" in line for line in running)
    # The workers die with their parent, and hold nothing any longer.
    for _ in range(50):
        out, _ = start("status", "results/toys").communicate(timeout=60)
        if out.splitlines()[-1] == "6 cells: 6 waiting":
            break
        time.sleep(0.2)
    assert out.splitlines()[-1] == "6 cells: 6 waiting"


STEPS, EVERY = 800, 50
LONGER = BENCHMARK.replace("steps = 30", f"steps = {STEPS}\ncheckpoint_every = {EVERY}")


def wait_for_checkpoint(results: Path, process: Callable[[int], bool]) -> Claim:
    """The claim of a cell that such a process runs, and has a checkpoint of."""
    for _ in range(600):
        for path in results.glob("cells/*/checkpoint.pt"):
            claim = CellFolder(path.parent).claim()
            if claim and process(claim.pid):
                return claim
        time.sleep(0.1)
    raise AssertionError("no checkpoint in a minute")


def each_once(results: Path) -> bool:
    """Whether each cell's steps were all taken, and none of them twice."""
    histories = [path.read_text() for path in results.glob("cells/*/history.csv")]
    rows = [[line.split(",")[0] for line in history.splitlines()[1:]] for history in histories]
    return rows == [[str(step) for step in range(EVERY, STEPS + 1, EVERY)]] * 6


@pytest.mark.slow
def test_a_grid_on_three_machines_of_which_one_dies(folder: Path) -> None:
    """Nodes of a Ray cluster on this machine."""
    Cluster = pytest.importorskip("ray.cluster_utils").Cluster  # noqa: N806
    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    (folder / "toys.toml").write_text(LONGER)
    finish(start("run", "toys.toml", "--results", "alone"))
    cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    try:
        nodes = [cluster.add_node(**node), cluster.add_node(**node)]
        raylets = {each.all_processes["raylet"][0].process.pid: each for each in nodes}
        (folder / "toys.toml").write_text(
            f'{LONGER}\n[execution]\nexecutor = "ray"\n'
            f'[executors.ray]\naddress = "{cluster.address}"\n'
        )
        process = start("run", "toys.toml")
        claim = wait_for_checkpoint(folder / "results" / "toys", lambda pid: parent(pid) in raylets)
        cluster.remove_node(raylets[parent(claim.pid)], allow_graceful=False)
        said = finish(process)
    finally:
        cluster.shutdown()
    assert "raylet" not in said
    results = folder / "results" / "toys"
    assert scores(results) == scores(folder / "alone" / "toys")
    assert each_once(results)


def parent(pid: int) -> int:
    """Of a process; -1 if there is no such process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except FileNotFoundError:
        return -1


@pytest.mark.slow
@pytest.mark.usefixtures("needs_slurm")
def test_a_grid_as_jobs_of_which_one_is_preempted(folder: Path) -> None:
    (folder / "toys.toml").write_text(LONGER)
    finish(start("run", "toys.toml", "--results", "alone"))
    (folder / "toys.toml").write_text(
        f'{LONGER}\n[execution]\nexecutor = "slurm"\n[executors.slurm]\ncpus = 1\ngpus = 0\n'
    )
    process = start("run", "toys.toml")
    results = folder / "results" / "toys"
    claim = wait_for_checkpoint(results, lambda pid: parent(pid) != -1)
    os.kill(claim.pid, signal.SIGUSR2)
    finish(process)
    assert scores(results) == scores(folder / "alone" / "toys")
    assert each_once(results)
    assert "Requeued job" in "".join(path.read_text() for path in results.glob("slurm/*.out"))
