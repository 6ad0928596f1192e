"""From cells to records, with the toys."""

import csv
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from torch import Tensor, nn

from dstbench import hookimpl
from dstbench.cache import Cache
from dstbench.contracts import Data, Model, Split, Workspace
from dstbench.errors import DataError, DivergedError, ScoreError
from dstbench.execution.pipeline import Pipeline
from dstbench.execution.scheduler import Scheduler
from dstbench.grid import Cell
from dstbench.plugins.plugin import Kind, Plugin
from dstbench.plugins.registry import Plugins
from dstbench.records import Record, Scores
from dstbench.store import Store

MakeCell = Callable[..., Cell]

CONVOLUTIONS = {"0.weight": 72, "3.weight": 576, "5.weight": 72}
"""Weights of the toy network."""
PIXELS = 4 * 4
"""A weight of these convolutions is used once per pixel."""
DENSE_FLOPS = PIXELS * 720
METHODS = ("static", "rigl", "magran", "leftmost")


class Listener:
    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    @hookimpl
    def dstbench_cell_started(self, cell: Cell) -> None:
        self.heard.append(("started", cell))

    @hookimpl
    def dstbench_step(self, cell: Cell, step: int, loss: float) -> None:
        self.heard.append(("step", cell, step, loss))

    @hookimpl
    def dstbench_topology_updated(self, cell: Cell, step: int, changed: int) -> None:
        self.heard.append(("updated", cell, step, changed))

    @hookimpl
    def dstbench_cell_finished(self, cell: Cell, record: Record) -> None:
        self.heard.append(("finished", cell, record))

    @property
    def steps(self) -> list[int]:
        return [event[2] for event in self.heard if event[0] == "step"]


@pytest.fixture
def listener(plugins: Plugins) -> Listener:
    listener = Listener()
    plugins.manager.register(listener)
    return listener


@dataclass
class Messages:
    texts: list[str] = field(default_factory=list)
    answers: dict[str, Callable[[], object]] = field(default_factory=dict)
    """What happens when a text is heard."""

    def __call__(self, text: str) -> None:
        self.texts.append(text)
        self.answers.get(text, lambda: None)()


@pytest.fixture
def messages() -> Messages:
    return Messages()


@pytest.fixture
def new_scheduler(plugins: Plugins, tmp_path: Path, messages: Messages) -> Callable[[], Scheduler]:
    def new_scheduler() -> Scheduler:
        workspace = Workspace(torch.device("cpu"), Cache(tmp_path / "cache"), messages)
        return Scheduler(Store(tmp_path / "results"), Pipeline(plugins, workspace))

    return new_scheduler


@pytest.fixture
def scheduler(new_scheduler: Callable[[], Scheduler]) -> Scheduler:
    return new_scheduler()


@pytest.fixture
def toy_model(plugins: Plugins) -> type[Model]:
    """The class, to be patched."""
    return plugins.find("model", "toy-net")


def break_sampling(toy_model: type[Model], monkeypatch: pytest.MonkeyPatch) -> None:
    def sample(*_: Any) -> Tensor:
        raise ZeroDivisionError("no samples today")

    monkeypatch.setattr(toy_model, "sample", sample)


def test_a_cell_leaves_a_whole_record(scheduler: Scheduler, make_cell: MakeCell) -> None:
    cell = make_cell("rigl", 0.5, sparsifier_settings={"exploration_frequency": 3})
    (record,) = scheduler.run([cell])
    folder = scheduler.store.cell(cell)
    assert record == folder.record()
    assert (record.status, record.error, record.cell) == ("done", None, cell)
    assert record.scores is not None
    assert None not in record.scores.model_dump().values()
    assert record.untrained_scores is None
    assert record.protocol is not None
    assert record.protocol.model_dump() == {
        "extractor": "toy-features",
        "weights_hash": "70" * 32,
        "resize": "none",
        "samples": 9,
        "reference": "toy-images/train",
        "reference_images": 26,
        "features": 8,
        "neighbours": 3,
        "kid_subsets": 2,
        "kid_subset_size": 9,
        "kid_scale": 1.0,
        "inception_score_splits": 9,
        "library": f"torch-fidelity {record.environment.packages['torch-fidelity']}",
        "others": (),
    }
    assert record.scores_by_noise == ()
    assert record.fid_interval is not None
    assert record.fid_interval.low < record.fid_interval.high
    assert [floor.name for floor in record.floors] == [
        "real (validation)", "real, blurred", "real, upside down", "real, patches shuffled"
    ]  # fmt: skip
    assert record.nearest is not None
    assert record.nearest.samples > 0
    assert record.times is not None
    assert 0 < record.times.training_step < record.times.training
    assert record.times.sample > 0
    assert record.peak_memory is None
    assert record.measurement is None  # nobody asked for it
    assert record.sizes is not None
    # 737 parameters: weights, gradients, two moments and averages; a step count per tensor, and
    # one of the averages. Of the 720 weights with a mask half are kept, and a bit of each of the
    # 576 in the only layer that ERK does not leave dense, of which a topology update holds the
    # gradient of all connections, too.
    assert record.sizes.dense_state_bytes == 5 * 4 * 737 + 6 * 4 + 8
    assert record.sizes.state_bytes == record.sizes.dense_state_bytes + 720 + 4 * 576
    assert record.sizes.dense_model_bytes == 4 * 737
    assert record.sizes.model_bytes == 4 * (737 - 360) + 576 // 8
    assert record.validation_loss is not None
    # after steps 3 and 6; exploration stops at 0.75 × 12 = 9
    assert (record.topology_updates, record.skipped_topology_updates) == (2, 0)
    assert record.metadata == {"size": 4}
    assert {path.name for path in folder.path.iterdir()} - {"lock"} == {
        "cell.json", "record.json", "history.csv", "denoiser.safetensors", "samples.npy",
        "samples.png", "reals.npy", "neighbours.npy", "topology.csv",
            "sampling.safetensors",
    }  # fmt: skip
    assert np.load(folder.samples, allow_pickle=False).shape == (9, 4, 4, 1)
    weights = folder.denoiser_state()
    assert sum(int(weights[name].count_nonzero()) for name in CONVOLUTIONS) == 360


# What is run, and what is not


def test_the_same_weights_are_sampled_from_several_noises(
    scheduler: Scheduler, make_cell: MakeCell
) -> None:
    one, several, others = (
        make_cell(evaluation={"sampling_seeds": seeds}) for seeds in (1, 2, (1, 5))
    )
    records = {record.cell.id: record for record in scheduler.run([one, several, others])}
    assert len(records) == 3
    first, both, last = (records[cell.id] for cell in (one, several, others))
    assert both.scores_by_noise[0] == first.scores
    assert both.scores_by_noise[1] == last.scores_by_noise[0] != last.scores_by_noise[1]
    assert both.scores == Scores.mean_of(both.scores_by_noise)
    assert both.fid_interval == first.fid_interval != last.fid_interval
    kept = {cell.id: np.load(scheduler.store.cell(cell).samples) for cell in (one, several, others)}
    np.testing.assert_array_equal(kept[one.id], kept[several.id])
    assert (kept[one.id] != kept[others.id]).any()


def test_what_sets_samples_beside_real_images_costs_no_cell_its_result(
    scheduler: Scheduler, make_cell: MakeCell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no stairs")

    monkeypatch.setattr("dstbench.execution.scoring.Scorer.floors", fail)
    folder = scheduler.store.cell(make_cell())
    folder.path.mkdir(parents=True)
    folder.neighbours.write_text("of an earlier run")
    (record,) = scheduler.run([make_cell()])
    assert (record.status, record.floors, record.nearest) == ("done", (), None)
    assert not folder.neighbours.exists()


def test_a_finished_cell_is_not_run_again(
    new_scheduler: Callable[[], Scheduler], listener: Listener, make_cell: MakeCell
) -> None:
    cells = [make_cell(), make_cell("static", 0.5)]
    records = new_scheduler().run(cells)
    listener.heard.clear()
    assert new_scheduler().run(cells) == records
    assert listener.heard == []


@pytest.mark.parametrize(
    ("changed", "runs_again"),
    [
        ({"training": {"learning_rate": 1e-3}}, True),
        ({"model_settings": {"dropout": 0.1}}, True),
        ({"evaluation": {"samples": 10}}, True),
        ({"seed": 1}, True),
        ({"training": {"log_every": 2, "checkpoint_every": 3}}, False),
        ({"evaluation": {"batch_size": 2}}, False),
    ],
)
def test_a_changed_setting_is_another_cell_if_it_changes_the_result(
    scheduler: Scheduler,
    listener: Listener,
    make_cell: MakeCell,
    changed: dict[str, Any],
    runs_again: bool,
) -> None:
    (first,) = scheduler.run([make_cell()])
    listener.heard.clear()
    (second,) = scheduler.run([make_cell(**changed)])
    assert bool(listener.heard) == runs_again
    assert (first != second) == runs_again
    assert len(scheduler.store.records()) == 1 + runs_again


def test_a_failed_cell_is_recorded_and_the_others_go_on(
    scheduler: Scheduler,
    make_cell: MakeCell,
    toy_model: type[Model],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = make_cell("static", 0.5)
    original = toy_model.sample

    def sample(self: Model, denoiser: nn.Module, *rest: Any) -> Tensor:
        if not denoiser.get_parameter("3.weight").all():  # it is sparse
            raise ZeroDivisionError("no samples today")
        return original(self, denoiser, *rest)

    monkeypatch.setattr(toy_model, "sample", sample)
    failed, done = scheduler.run([broken, make_cell()])
    assert (failed.status, done.status) == ("failed", "done")
    assert failed.error is not None
    assert failed.error.startswith("Traceback (most recent call last):")
    assert failed.error.endswith("ZeroDivisionError: no samples today\n")
    assert failed.scores is None
    assert scheduler.store.cell(broken).record() == failed


def test_a_failed_cell_is_tried_again_from_its_checkpoint(
    new_scheduler: Callable[[], Scheduler],
    listener: Listener,
    make_cell: MakeCell,
    toy_model: type[Model],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cell = make_cell()
    with monkeypatch.context() as patch:
        break_sampling(toy_model, patch)
        assert new_scheduler().run([cell])[0].status == "failed"
    listener.heard.clear()
    scheduler = new_scheduler()
    assert scheduler.run([cell])[0].status == "done"
    assert listener.steps == []  # it was trained already
    assert not scheduler.store.cell(cell).checkpoint.exists()


def test_a_diverged_cell_is_recorded_and_not_tried_again(
    new_scheduler: Callable[[], Scheduler], listener: Listener, make_cell: MakeCell
) -> None:
    cell = make_cell("rigl", 0.5, training={"learning_rate": 1e30, "checkpoint_every": 1})
    (record,) = new_scheduler().run([cell])
    assert record.status == "diverged"
    assert record.error in ("the loss is nan at step 2", "the loss is inf at step 2")
    assert not new_scheduler().store.cell(cell).checkpoint.exists()
    listener.heard.clear()
    assert new_scheduler().run([cell]) == [record]
    assert listener.heard == []


def test_a_cell_whose_samples_diverged_is_recorded_so(
    scheduler: Scheduler,
    make_cell: MakeCell,
    toy_model: type[Model],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def sample(*_: Any) -> Tensor:
        raise DivergedError("the samples are not finite")

    monkeypatch.setattr(toy_model, "sample", sample)
    (record,) = scheduler.run([make_cell()])
    assert (record.status, record.error) == ("diverged", "the samples are not finite")


def test_a_cell_whose_model_lacks_data_is_skipped(
    scheduler: Scheduler,
    make_cell: MakeCell,
    toy_model: type[Model],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def build(*_: Any) -> nn.Module:
        raise DataError("no autoencoder is there")

    with monkeypatch.context() as patch:
        patch.setattr(toy_model, "build", build)
        (record,) = scheduler.run([make_cell()])
    assert (record.status, record.error) == ("skipped", "no autoencoder is there")
    assert scheduler.run([make_cell()])[0].status == "done"


def test_a_listener_that_fails_takes_down_its_cell_alone(
    scheduler: Scheduler, plugins: Plugins, make_cell: MakeCell
) -> None:
    class Refuses:
        @hookimpl
        def dstbench_cell_started(self, cell: Cell) -> None:
            if cell.sparsity:
                raise OSError("the log is full")

    plugins.manager.register(Refuses())
    failed, done = scheduler.run([make_cell("static", 0.5), make_cell()])
    assert (failed.status, done.status) == ("failed", "done")
    assert failed.error is not None
    assert "the log is full" in failed.error


def test_a_cell_is_waited_for_that_another_process_is_running_and_taken_over_if_it_dies(
    scheduler: Scheduler, listener: Listener, messages: Messages, make_cell: MakeCell
) -> None:
    taken, free = make_cell("static", 0.5), make_cell()
    path = scheduler.store.cell(taken).path
    path.mkdir(parents=True)
    lock = FileLock(path / "lock", thread_local=False)
    lock.acquire()
    waits = "waiting for other processes, which are running 1 cells"
    messages.answers[waits] = lock.release
    assert [record.cell for record in scheduler.run([taken, free])] == [taken, free]
    started = [event[1] for event in listener.heard if event[0] == "started"]
    assert started == [free, taken]
    assert messages.texts.count(waits) == 1


def test_what_another_process_has_finished_meanwhile_is_among_the_records(
    scheduler: Scheduler,
    plugins: Plugins,
    new_scheduler: Callable[[], Scheduler],
    make_cell: MakeCell,
) -> None:
    """The other one is done with its cell while this one runs the next."""
    taken, free = make_cell("static", 0.5), make_cell()
    path = scheduler.store.cell(taken).path
    path.mkdir(parents=True)
    lock = FileLock(path / "lock")
    lock.acquire()

    class Other:
        @hookimpl
        def dstbench_cell_started(self, cell: Cell) -> None:
            if cell == free:
                lock.release()
                new_scheduler().run([taken])

    plugins.manager.register(Other())
    assert [record.cell for record in scheduler.run([taken, free])] == [taken, free]


@pytest.mark.parametrize("error", [OSError("the log is full"), SystemExit("the log is full")])
def test_a_cell_whose_listener_fails_in_training_goes_on_from_its_checkpoint(
    new_scheduler: Callable[[], Scheduler],
    plugins: Plugins,
    listener: Listener,
    make_cell: MakeCell,
    error: BaseException,
) -> None:
    class Fails:
        @hookimpl
        def dstbench_step(self, cell: Cell, step: int) -> None:
            if cell.sparsity and step == 7:
                raise error

    cells = [make_cell("magran", 0.5, training={"checkpoint_every": 5}), make_cell()]
    fails = Fails()
    plugins.manager.register(fails)
    failed, done = new_scheduler().run(cells)
    assert (failed.status, done.status) == ("failed", "done")
    assert failed.error is not None
    assert failed.error.startswith("Traceback (most recent call last):")
    assert failed.error.endswith("the log is full\n")
    plugins.manager.unregister(fails)
    listener.heard.clear()
    assert [record.status for record in new_scheduler().run(cells)] == ["done", "done"]
    assert listener.steps == [6, 7, 8, 9, 10, 11, 12]


def test_a_listener_that_fails_at_the_end_of_a_cell_stops_nothing(
    scheduler: Scheduler, plugins: Plugins, messages: Messages, make_cell: MakeCell
) -> None:
    class Fails:
        @hookimpl
        def dstbench_cell_finished(self) -> None:
            raise OSError("the log is full")

    plugins.manager.register(Fails())
    records = scheduler.run([make_cell(), make_cell("static", 0.5)])
    assert [record.status for record in records] == ["done", "done"]
    assert sum("the log is full" in text for text in messages.texts) == 2


def test_a_record_that_cannot_be_read_does_not_stop_the_others(
    scheduler: Scheduler, messages: Messages, make_cell: MakeCell
) -> None:
    odd, good = make_cell("static", 0.5), make_cell()
    path = scheduler.store.cell(odd).path
    path.mkdir(parents=True)
    (path / "record.json").write_text("{}")
    assert [record.cell for record in scheduler.run([odd, good])] == [good]
    assert "record.json: not a record of this version" in messages.texts[-1]
    assert (path / "record.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        (
            {"training": {"batch_size": 27}},
            DataError,
            "toy-net on toy-images: the dataset has 26 training examples, fewer than "
            "training.batch_size = 27; a batch size of at most 26 would fit",
        ),
        (
            {"evaluation": {"samples": 3}},
            ScoreError,
            "toy-net on toy-images: there are 3 samples, but precision and recall with "
            "neighbours = 3 need at least 4",
        ),
        (
            {"evaluation": {"reference": "validation"}, "dataset_settings": {"validation": 0}},
            ScoreError,
            "toy-net on toy-images: there are 0 validation images, but precision and recall with "
            "neighbours = 3 need at least 4",
        ),
    ],
)
def test_too_little_data_is_an_error_before_anything_is_trained(
    scheduler: Scheduler,
    listener: Listener,
    make_cell: MakeCell,
    changed: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error) as caught:
        scheduler.run([make_cell(), make_cell("static", 0.5, **changed)])
    assert str(caught.value) == message
    assert listener.heard == []
    assert not scheduler.store.folder.exists()


# Plugins that fail before anything is trained


def plug_in(plugins: Plugins, kind: Kind, cls: type[Any]) -> None:
    plugins.listing.append(Plugin(cls.name, kind, "tests", "1.0", "ok", cls=cls))


def test_a_dataset_that_fails_is_loaded_once_and_fails_all_its_cells(
    scheduler: Scheduler, plugins: Plugins, messages: Messages, make_cell: MakeCell
) -> None:
    loads = []

    class Moon(plugins.find("dataset", "toy-images")):  # type: ignore[misc]
        name = "moon"

        def load(self, workspace: Workspace) -> Data:
            loads.append(self)
            raise SystemExit("no moon")

    plug_in(plugins, "dataset", Moon)
    cells = [
        cell.model_copy(update={"dataset": "moon"})
        for cell in (make_cell(), make_cell("static", 0.5))
    ]
    first, second, done = scheduler.run([*cells, make_cell()])
    assert (first.status, second.status, done.status) == ("failed", "failed", "done")
    assert first.error == second.error
    assert first.error is not None
    assert first.error.endswith("SystemExit: no moon\n")
    assert len(loads) == 1
    assert messages.texts[0] == "cells that cannot be run: 2 (SystemExit: no moon)"
    assert scheduler.store.cell(cells[0]).record() == first


@pytest.mark.parametrize(
    ("answer", "last_words"),
    [
        ("raise", "LookupError: no moon"),
        ("None", "TypeError: dataset 'moon': availability() returned None; an Availability would "
         "be right"),
    ],
)  # fmt: skip
def test_a_dataset_that_does_not_say_whether_it_is_there_is_not_loaded(
    scheduler: Scheduler, plugins: Plugins, make_cell: MakeCell, answer: str, last_words: str
) -> None:
    class Moon(plugins.find("dataset", "toy-images")):  # type: ignore[misc]
        name = "moon"

        def availability(self, workspace: Workspace) -> Any:
            if answer == "raise":
                raise LookupError("no moon")

        def load(self, workspace: Workspace) -> Data:
            raise AssertionError("perhaps it would be downloaded")

    plug_in(plugins, "dataset", Moon)
    moon = make_cell().model_copy(update={"dataset": "moon"})
    told = [each.name for each, _ in scheduler.availability([moon, make_cell()])]
    assert told == ["toy-images", "toy-features"]
    failed, done = scheduler.run([moon, make_cell()], download=True)
    assert (failed.status, done.status) == ("failed", "done")
    assert failed.error is not None
    assert failed.error.endswith(f"{last_words}\n")


def test_nothing_is_loaded_for_a_cell_whose_sparsifier_is_broken(
    scheduler: Scheduler, plugins: Plugins, listener: Listener, make_cell: MakeCell
) -> None:
    error = ImportError("no moon")
    plugins.listing.append(
        Plugin("moon", None, "tests", "1.0", "broken", "ImportError: no moon", error=error)
    )
    cell = make_cell("moon", 0.5, dataset_settings={"away": "web"})
    (record,) = scheduler.run([cell], download=True)
    assert record.status == "failed"
    assert record.error is not None
    assert "\nImportError: no moon\n" in f"\n{record.error}"
    assert record.error.endswith(
        "PluginError: sparsifier 'moon' of tests 1.0 is broken: ImportError: no moon\n"
    )
    assert not list(scheduler.pipeline.workspace.cache.root.glob("toys-*"))
    assert listener.heard == []


def test_a_cell_is_not_run_with_other_versions_of_its_plugins(
    scheduler: Scheduler, make_cell: MakeCell
) -> None:
    """As there may be on another machine."""
    ours = {"model": "toys 1.0", "dataset": "toys 1.0", "sparsifier": "toys 1.0"}
    upgraded = make_cell("leftmost", 0.5, versions=ours | {"sparsifier": "toys 1.1"})
    failed, done = scheduler.run([upgraded, make_cell("leftmost", 0.5, versions=ours)])
    assert (failed.status, done.status) == ("failed", "done")
    assert failed.error is not None
    assert failed.error.endswith(
        "PluginError: the cell is to be run with sparsifier 'leftmost' of toys 1.1, but toys 1.0 "
        "is installed\n"
    )


def test_ctrl_c_in_a_plugin_ends_the_run(
    scheduler: Scheduler, plugins: Plugins, make_cell: MakeCell
) -> None:
    class Moon(plugins.find("dataset", "toy-images")):  # type: ignore[misc]
        name = "moon"

        def load(self, workspace: Workspace) -> Data:
            raise KeyboardInterrupt

    plug_in(plugins, "dataset", Moon)
    with pytest.raises(KeyboardInterrupt):
        scheduler.run([make_cell().model_copy(update={"dataset": "moon"})])


# Data that is not there


@pytest.mark.parametrize(
    ("away", "download", "reason"),
    [
        ("person", False, "ask the toymaker"),
        ("person", True, "ask the toymaker"),
        ("web", False, "dataset 'toy-images' is not downloaded yet (1 kB from the toyshop)"),
        ("offline", True, "the toyshop is closed"),
    ],
)
def test_a_cell_without_data_is_skipped_and_the_others_go_on(
    scheduler: Scheduler,
    listener: Listener,
    make_cell: MakeCell,
    away: str,
    download: bool,
    reason: str,
) -> None:
    lacking, other = make_cell(dataset_settings={"away": away}), make_cell()
    skipped, done = scheduler.run([lacking, other], download=download)
    assert (skipped.status, skipped.error, done.status) == ("skipped", reason, "done")
    assert scheduler.store.cell(lacking).record() == skipped
    assert {event[1].id for event in listener.heard} == {other.id}


def test_a_skipped_cell_is_tried_again_from_its_checkpoint(
    new_scheduler: Callable[[], Scheduler],
    listener: Listener,
    make_cell: MakeCell,
    toy_model: type[Model],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cell = make_cell(dataset_settings={"away": "web"})
    with monkeypatch.context() as patch:
        break_sampling(toy_model, patch)
        assert new_scheduler().run([cell], download=True)[0].status == "failed"
    scheduler = new_scheduler()
    (toys,) = scheduler.pipeline.workspace.cache.root.glob("toys-*[!k]")
    shutil.rmtree(toys)
    assert scheduler.run([cell])[0].status == "skipped"
    listener.heard.clear()
    assert new_scheduler().run([cell], download=True)[0].status == "done"
    assert listener.steps == []


def test_a_finished_cell_needs_no_data(
    new_scheduler: Callable[[], Scheduler], make_cell: MakeCell, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = make_cell()
    records = new_scheduler().run([cell])
    scheduler = new_scheduler()

    def away(*_: Any) -> Any:
        raise AssertionError("nobody asked for it")

    for method in ("availability", "load"):
        monkeypatch.setattr(scheduler.pipeline.plugins.find("dataset", "toy-images"), method, away)
    assert scheduler.availability([cell]) == []
    assert scheduler.run([cell]) == records


def test_what_cells_need_is_told_once(scheduler: Scheduler, make_cell: MakeCell) -> None:
    cells = [make_cell(), make_cell("static", 0.5), make_cell(dataset_settings={"away": "web"})]
    told = [
        (need.kind, need.name, need.settings, len(need.cells), available.state)
        for need, available in scheduler.availability(cells)
    ]
    assert told == [
        ("dataset", "toy-images", {}, 2, "ready"),
        ("dataset", "toy-images", {"away": "web"}, 1, "download"),
        ("feature extractor", "toy-features", {}, 3, "ready"),
    ]


def test_weights_of_a_feature_extractor_are_a_need_too(
    scheduler: Scheduler, make_cell: MakeCell
) -> None:
    lacking = make_cell(evaluation={"extractor": "inception"})
    skipped, done = scheduler.run([lacking, make_cell()])
    assert (skipped.status, done.status) == ("skipped", "done")
    assert skipped.error is not None
    assert skipped.error.startswith(
        "feature extractor 'inception' is not downloaded yet (91 MB from https://"
    )


def test_what_was_downloaded_but_is_too_little_is_an_error(
    scheduler: Scheduler, listener: Listener, make_cell: MakeCell
) -> None:
    cell = make_cell(training={"batch_size": 27}, dataset_settings={"away": "web"})
    with pytest.raises(DataError, match="toy-net on toy-images: the dataset has 26 training"):
        scheduler.run([make_cell(), cell], download=True)
    assert listener.heard == []


# Events


def test_a_listener_hears_the_events_in_order(
    scheduler: Scheduler, listener: Listener, make_cell: MakeCell
) -> None:
    dense = make_cell(training={"steps": 2})
    rigl = make_cell(
        "rigl", 0.5, training={"steps": 6}, sparsifier_settings={"exploration_frequency": 2}
    )
    records = scheduler.run([dense, rigl])
    without_numbers = [event[:3] if event[0] != "finished" else event for event in listener.heard]
    assert without_numbers == [
        ("started", dense),
        ("step", dense, 1),
        ("step", dense, 2),
        ("finished", dense, records[0]),
        ("started", rigl),
        ("step", rigl, 1),
        ("updated", rigl, 2),
        ("step", rigl, 2),
        ("step", rigl, 3),
        ("updated", rigl, 4),  # and exploration stops at 0.75 × 6 = 4.5
        ("step", rigl, 4),
        ("step", rigl, 5),
        ("step", rigl, 6),
        ("finished", rigl, records[1]),
    ]
    losses = [event[3] for event in listener.heard if event[0] == "step" and event[1] == rigl]
    with scheduler.store.cell(rigl).history.open(newline="") as file:
        first, last = csv.DictReader(file)
    assert float(first["loss"]) == pytest.approx(sum(losses[:5]) / 5, rel=1e-5)
    assert float(last["loss"]) == pytest.approx(losses[5], rel=1e-5)
    changed = [event[3] for event in listener.heard if event[0] == "updated"]
    assert all(0 < number <= 180 for number in changed)  # half of 360 active weights, at most


def test_ctrl_c_leaves_a_cell_that_goes_on(
    new_scheduler: Callable[[], Scheduler],
    plugins: Plugins,
    listener: Listener,
    make_cell: MakeCell,
) -> None:
    class CtrlC:
        @hookimpl
        def dstbench_step(self, step: int) -> None:
            if step == 7:
                raise KeyboardInterrupt

    cell = make_cell("magran", 0.5, training={"checkpoint_every": 5})
    ctrl_c = CtrlC()
    plugins.manager.register(ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        new_scheduler().run([cell])
    assert new_scheduler().store.cell(cell).record() is None
    plugins.manager.unregister(ctrl_c)
    listener.heard.clear()
    assert new_scheduler().run([cell])[0].status == "done"
    assert listener.steps == [6, 7, 8, 9, 10, 11, 12]


# Scores


def test_untrained_scores_are_for_dense_cells_where_they_are_asked_for(
    scheduler: Scheduler, make_cell: MakeCell
) -> None:
    asked = {"evaluation": {"untrained": True}}
    dense, sparse, unasked = scheduler.run(
        [make_cell(**asked), make_cell("static", 0.5, **asked), make_cell()]
    )
    assert dense.untrained_scores is not None
    assert dense.untrained_scores != dense.scores
    assert sparse.untrained_scores is None
    assert unasked.untrained_scores is None


def test_samples_are_drawn_without_dropout(scheduler: Scheduler, make_cell: MakeCell) -> None:
    """One that drops nearly everything trains a little, and samples as well as it can."""
    modes: list[bool] = []
    cell = make_cell(model_settings={"dropout": 0.9}, evaluation={"untrained": True})
    original = scheduler.pipeline.plugins.find("model", "toy-net")._denoise

    def look(self: Model, denoiser: nn.Module, images: Tensor) -> Any:
        modes.append(denoiser.training)
        return original(self, denoiser, images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduler.pipeline.plugins.find("model", "toy-net"), "_denoise", look)
        scheduler.run([cell])
    assert modes == [False, False]


def test_the_batch_size_of_sampling_changes_no_sample(
    scheduler: Scheduler, tmp_path: Path, make_cell: MakeCell
) -> None:
    images = []
    for size in (2, 64):
        scheduler.store = Store(tmp_path / str(size))
        cell = make_cell(evaluation={"batch_size": size})
        assert scheduler.run([cell])[0].status == "done"
        images.append(np.load(scheduler.store.cell(cell).samples, allow_pickle=False).astype(int))
    assert np.abs(images[0] - images[1]).max() <= 1  # rounding


# Counts


def layer_counts(sparsity: float) -> dict[str, int]:
    """Active weights with the uniform distribution, which gives each layer the same density."""
    return {name: round((1 - sparsity) * size) for name, size in CONVOLUTIONS.items()}


@pytest.mark.parametrize(
    ("method", "sparsity", "dense_gradient_steps"),
    [
        ("dense", 0.0, 0),
        ("static", 0.5, 0),
        ("static", 0.75, 0),
        ("magran", 0.75, 0),
        ("rigl", 0.75, 2),  # after steps 3 and 6; exploration stops at 0.75 × 12 = 9
        ("rigl", 0.0, 0),
    ],
)
def test_counts_by_hand(
    scheduler: Scheduler,
    make_cell: MakeCell,
    method: str,
    sparsity: float,
    dense_gradient_steps: int,
) -> None:
    settings: dict[str, Any] = {} if method == "dense" else {"distribution": "uniform"}
    if method in ("rigl", "magran"):
        settings["exploration_frequency"] = 3
    cell = make_cell(method, sparsity, sparsifier_settings=settings)
    (record,) = scheduler.run([cell])
    counts = record.counts
    assert counts is not None
    active = sum(layer_counts(sparsity).values())
    flops = PIXELS * active
    assert counts.parameters == 720 + 8 + 8 + 1
    assert counts.active_parameters == active + 17
    assert (counts.sparsifiable, counts.active_sparsifiable) == (720, active)
    assert counts.sparsity == pytest.approx(sparsity)
    assert counts.inference_flops == flops
    assert counts.dense_inference_flops == DENSE_FLOPS
    assert counts.sample_flops == 3 * flops
    ordinary = 12 - dense_gradient_steps
    per_example = ordinary * 3 * flops + dense_gradient_steps * (2 * flops + DENSE_FLOPS)
    assert counts.training_flops == 6 * per_example
    assert counts.dense_training_flops == 6 * 12 * 3 * DENSE_FLOPS


# The same for every method


@dataclass
class Seen:
    """What a model sees of one cell."""

    weights: list[Tensor] = field(default_factory=list)
    batches: list[list[int]] = field(default_factory=list)
    noise: list[Tensor] = field(default_factory=list)
    sampling: list[Tensor] = field(default_factory=list)

    def equals(self, other: "Seen") -> dict[str, bool]:
        tensors = ("weights", "noise", "sampling")
        return {"batches": self.batches == other.batches} | {
            name: all(map(torch.equal, getattr(self, name), getattr(other, name)))
            for name in tensors
        }


def watch(toy_model: type[Model], seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    original = {name: getattr(toy_model, name) for name in ("build", "batch", "loss", "sample")}

    def build(self: Model) -> nn.Module:
        denoiser: nn.Module = original["build"](self)
        seen.weights += [parameter.detach().clone() for parameter in denoiser.parameters()]
        return denoiser

    def batch(self: Model, split: Split, indices: Tensor) -> Any:
        seen.batches.append(indices.tolist())
        return original["batch"](self, split, indices)

    def loss(self: Model, denoiser: nn.Module, batch: Any, rng: torch.Generator) -> Tensor:
        seen.noise.append(rng.get_state())
        result: Tensor = original["loss"](self, denoiser, batch, rng)
        return result

    def sample(self: Model, *rest: Any) -> Tensor:
        seen.sampling.append(rest[-1].get_state())
        result: Tensor = original["sample"](self, *rest)
        return result

    for name, watched in {"build": build, "batch": batch, "loss": loss, "sample": sample}.items():
        monkeypatch.setattr(toy_model, name, watched)


def run_and_watch(
    scheduler: Scheduler, cell: Cell, toy_model: type[Model], monkeypatch: pytest.MonkeyPatch
) -> Seen:
    seen = Seen()
    with monkeypatch.context() as patch:
        watch(toy_model, seen, patch)
        assert scheduler.run([cell])[0].status == "done"
    return seen


@pytest.mark.parametrize("sparsity", [0.0, 0.9])
@pytest.mark.parametrize("method", METHODS)
def test_all_methods_see_the_same(
    scheduler: Scheduler,
    make_cell: MakeCell,
    toy_model: type[Model],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    sparsity: float,
) -> None:
    settings = {} if method == "static" else {"exploration_frequency": 3}
    dense = run_and_watch(scheduler, make_cell(), toy_model, monkeypatch)
    assert (len(dense.weights), len(dense.sampling)) == (6, 1)
    assert len(dense.batches) == len(dense.noise) == 12 + 2  # 7 validation images: 2 batches
    cell = make_cell(method, sparsity, sparsifier_settings=settings)
    assert all(run_and_watch(scheduler, cell, toy_model, monkeypatch).equals(dense).values())


def test_another_seed_sees_something_else(
    scheduler: Scheduler,
    make_cell: MakeCell,
    toy_model: type[Model],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = (
        run_and_watch(scheduler, make_cell(seed=seed), toy_model, monkeypatch) for seed in (0, 1)
    )
    assert not any(first.equals(second).values())


def test_a_cell_does_not_depend_on_those_before_it(
    scheduler: Scheduler, tmp_path: Path, make_cell: MakeCell
) -> None:
    last = make_cell("magran", 0.5, sparsifier_settings={"exploration_frequency": 3})
    others = [make_cell(), make_cell("rigl", 0.9), make_cell("static", 0.5)]
    weights = []
    for name, cells in (("alone", [last]), ("after others", [*others, last])):
        scheduler.store = Store(tmp_path / name)
        scheduler.run(cells)
        weights.append(scheduler.store.cell(last).denoiser.read_bytes())
    assert weights[0] == weights[1]
