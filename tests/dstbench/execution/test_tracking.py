"""Trackers are told what happens, and cost nothing, whatever becomes of them."""

import csv
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event, current_thread, main_thread
from typing import Any, ClassVar

import pytest
from pydantic import Field

from dstbench import hookimpl
from dstbench.contracts import Executor, LayerChange, PluginSettings, Tracker
from dstbench.errors import PluginError
from dstbench.execution import tracking
from dstbench.execution.scheduler import Scheduler
from dstbench.execution.tracking import Tracking
from dstbench.execution.worker import RunOptions
from dstbench.grid import Cell
from dstbench.plugins.registry import Plugins
from dstbench.records import Record
from dstbench.store import CellFolder

MakeCell = Callable[..., Cell]

TOLD: list[tuple[Any, ...]] = []
"""What trackers were told."""


class Told(Tracker["Told.Settings"]):
    """Notes down what it is told."""

    name = "told"

    class Settings(PluginSettings):
        fails: str = Field("", description="method that raises")
        hangs: str = Field("", description="method that does not return")

    released: ClassVar[Event] = Event()

    def __init__(self, settings: Settings, benchmark: str, results: Path) -> None:
        super().__init__(settings, benchmark, results)
        self._note("__init__", benchmark, results)

    def run_started(self, cells: Sequence[Cell]) -> None:
        self._note("run_started", [cell.id for cell in cells])

    def run_ended(self, records: Sequence[Record]) -> None:
        self._note("run_ended", [record.status for record in records])

    def cell_started(self, cell: Cell, folder: Path) -> None:
        self._note("cell_started", cell.id, folder)

    def progressed(self, step: int, loss: float, seconds_per_step: float) -> None:
        self._note("progressed", step, loss, seconds_per_step)

    def layers_changed(self, step: int, layers: Sequence[LayerChange]) -> None:
        self._note("layers_changed", step, layers)

    def cell_ended(self, record: Record | None, sheet: Path | None) -> None:
        self._note("cell_ended", record and record.status, sheet)

    def _note(self, event: str, *what: Any) -> None:
        assert current_thread() is not main_thread()
        TOLD.append((event, *what))
        if self.settings.fails == event:
            raise PluginError("it needs the package nothing")
        if self.settings.hangs == event:
            self.released.wait(30)


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    TOLD.clear()
    Told.released.clear()
    yield
    Told.released.set()  # what hangs does so no longer


@pytest.fixture
def tracked(scheduler: Scheduler, plugins: Plugins) -> Callable[..., Scheduler]:
    """A scheduler that tells the tracker, which has these settings."""
    plugins.add(Told)

    def tracked(**settings: str) -> Scheduler:
        options = RunOptions(tracking=Tracking(trackers={"told": settings}))
        return replace(scheduler, options=options)

    return tracked


def events() -> list[Any]:
    return [event[0] for event in TOLD if event[0] != "__init__"]


def about_trackers(texts: list[str]) -> list[str]:
    return [text for text in texts if text.startswith("tracker ")]


def rigl(make_cell: MakeCell, **training: Any) -> Cell:
    return make_cell(
        "rigl", 0.5, sparsifier_settings={"exploration_frequency": 4}, training=training
    )


def test_a_run_is_told_from_its_start_to_its_end(
    tracked: Callable[..., Scheduler], make_cell: MakeCell
) -> None:
    scheduler, cells = tracked(), [make_cell(), rigl(make_cell)]
    scheduler.run(cells)
    folders = [scheduler.store.cell(cell).path for cell in cells]
    assert events() == [
        "run_started",
        *("cell_started", "progressed", "progressed", "progressed", "cell_ended"),
        *("cell_started", "layers_changed", "layers_changed", "progressed", "layers_changed"),
        *("progressed", "progressed", "cell_ended"),
        "run_ended",
    ]
    assert TOLD[0] == ("__init__", "toys", scheduler.store.folder)
    assert TOLD[1] == ("run_started", [cell.id for cell in cells])
    assert [event[1:] for event in TOLD if event[0] == "cell_started"] == [
        (cell.id, folder) for cell, folder in zip(cells, folders, strict=True)
    ]
    assert [event[1:] for event in TOLD if event[0] == "cell_ended"] == [
        ("done", folder / "samples.png") for folder in folders
    ]
    assert TOLD[-1] == ("run_ended", ["done", "done"])


def test_what_is_told_is_what_the_tables_say(
    tracked: Callable[..., Scheduler], make_cell: MakeCell
) -> None:
    scheduler, cell = tracked(), rigl(make_cell)
    scheduler.run([cell])
    folder = scheduler.store.cell(cell)
    with folder.history.open() as file:
        history = [(int(row["step"]), row["loss"]) for row in csv.DictReader(file)]
    assert [(e[1], f"{e[2]:.6g}") for e in TOLD if e[0] == "progressed"] == history
    with folder.topology.open() as file:
        rows = [(*row.values(),) for row in csv.DictReader(file)]
    told = [
        (str(event[1]), each.name, f"{each.density:.6g}", str(each.changed))
        for event in TOLD
        if event[0] == "layers_changed"
        for each in event[2]
    ]
    assert told == rows
    assert {row[0] for row in rows} == {"0", "4", "8"}


def test_nothing_is_told_of_a_run_that_has_nothing_to_do(
    tracked: Callable[..., Scheduler], make_cell: MakeCell
) -> None:
    scheduler, cell = tracked(), make_cell()
    scheduler.run([cell])
    TOLD.clear()
    scheduler.run([cell])
    assert TOLD == []


def test_a_cell_that_was_stopped_goes_on_with_its_step_numbers(
    tracked: Callable[..., Scheduler], plugins: Plugins, make_cell: MakeCell
) -> None:
    class Stops:
        @hookimpl
        def dstbench_step(self, step: int) -> None:
            if step == 7:
                raise KeyboardInterrupt

    stops, cell = Stops(), rigl(make_cell, checkpoint_every=5)
    plugins.manager.register(stops)
    with pytest.raises(KeyboardInterrupt):
        tracked().run([cell])
    assert TOLD[-2:] == [("cell_ended", None, None), ("run_ended", [])]
    plugins.manager.unregister(stops)
    TOLD.clear()
    tracked().run([cell])
    assert [event[1] for event in TOLD if event[0] == "progressed"] == [10, 12]
    assert [event[1] for event in TOLD if event[0] == "layers_changed"] == [8]


def test_results_do_not_depend_on_trackers(
    scheduler: Scheduler, tracked: Callable[..., Scheduler], make_cell: MakeCell, tmp_path: Path
) -> None:
    cell, other = rigl(make_cell), tmp_path / "other"
    (alone,) = scheduler.run([cell])
    scheduler.store.folder.rename(other)
    (told,) = tracked().run([cell])
    assert events() != []
    assert (told.scores, told.validation_loss) == (alone.scores, alone.validation_loss)
    for name in ("denoiser.safetensors", "samples.npy", "topology.csv"):
        files = [folder / "cells" / cell.id / name for folder in (other, scheduler.store.folder)]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("method", ["__init__", "run_started"])
def test_a_tracker_that_fails_at_once_is_left_out(
    tracked: Callable[..., Scheduler], make_cell: MakeCell, texts: list[str], method: str
) -> None:
    records = tracked(fails=method).run([make_cell(), make_cell(seed=1)])
    assert [record.status for record in records] == ["done", "done"]
    assert "cell_started" not in events()
    assert about_trackers(texts) == [
        "tracker 'told' failed, cells are run without it: it needs the package nothing"
    ]


@pytest.mark.parametrize("method", ["cell_started", "progressed", "layers_changed", "cell_ended"])
def test_a_tracker_that_fails_costs_no_cell_and_is_reported_once(
    tracked: Callable[..., Scheduler], make_cell: MakeCell, texts: list[str], method: str
) -> None:
    cells = [rigl(make_cell), rigl(make_cell, learning_rate=0.02)]
    assert [record.status for record in tracked(fails=method).run(cells)] == ["done", "done"]
    assert len(about_trackers(texts)) == 1
    assert events().count(method) == 2  # one for each cell
    assert events().count("cell_ended") == 2  # it may have files to close


def test_a_tracker_that_hangs_is_left_alone(
    tracked: Callable[..., Scheduler],
    make_cell: MakeCell,
    texts: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracking, "SECONDS", 0.2)
    cells = [make_cell(), make_cell(seed=1)]
    start = time.monotonic()
    assert [each.status for each in tracked(hangs="progressed").run(cells)] == ["done", "done"]
    assert time.monotonic() - start < 15
    assert events().count("progressed") == 1
    assert about_trackers(texts) == [
        "tracker 'told' failed, cells are run without it: it did not answer within 0 seconds"
    ]


def test_a_cell_without_a_result_is_told(
    tracked: Callable[..., Scheduler], plugins: Plugins, make_cell: MakeCell
) -> None:
    class Fails:
        @hookimpl
        def dstbench_step(self) -> None:
            raise OSError("no")

    plugins.manager.register(Fails())
    tracked().run([make_cell()])
    assert TOLD[-2:] == [("cell_ended", "failed", None), ("run_ended", ["failed"])]


def test_a_cell_that_timed_out_is_told_of(
    tracked: Callable[..., Scheduler], make_cell: MakeCell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process that its time limit ended."""
    monkeypatch.setattr(CellFolder, "timeout_traceback", lambda folder: "Timeout (0:01:00)!")
    (record,) = tracked().run([make_cell()])
    assert record.status == "failed"
    assert events() == ["run_started", "cell_started", "cell_ended", "run_ended"]


def test_a_listener_that_fails_where_a_run_starts_or_ends_is_reported(
    scheduler: Scheduler, plugins: Plugins, make_cell: MakeCell, texts: list[str]
) -> None:
    class Fails:
        @hookimpl
        def dstbench_run_started(self, benchmark: str) -> None:
            raise OSError(f"no {benchmark}")

        @hookimpl
        def dstbench_run_finished(self, records: Sequence[Record]) -> None:
            raise OSError(f"{len(records)} too many")

    plugins.manager.register(Fails())
    assert [record.status for record in scheduler.run([make_cell()])] == ["done"]
    told = [text.splitlines()[-1] for text in texts if "Traceback" in text]
    assert told == ["OSError: no toys", "OSError: 1 too many"]


@pytest.mark.slow
def test_other_processes_tell_of_their_cells(
    scheduler: Scheduler, plugins: Plugins, make_cell: MakeCell
) -> None:
    local: type[Executor] = plugins.find("executor", "local")
    executor = local(local.Settings(jobs=2))  # type: ignore[call-arg]
    options = RunOptions("cpu", 1, tracking=Tracking(trackers={"toy-lines": {}}))
    cells = [make_cell(), rigl(make_cell)]
    replace(scheduler, options=options).run(cells, executor=executor)
    for cell in cells:
        told = (scheduler.store.cell(cell).path / "told.jsonl").read_text().splitlines()
        steps = [json.loads(line)["step"] for line in told]
        assert steps == [5, 10, 12]
