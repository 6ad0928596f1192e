"""What is promised of a tracker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import SkipTest

import numpy as np
import torch
from PIL import Image

from dstbench.cell import DENSE, Cell
from dstbench.contracts import LayerChange, Tracker
from dstbench.errors import PluginError
from dstbench.execution.machine import environment
from dstbench.plugins.isolation import Aside
from dstbench.records import Record, Scores, Times
from dstbench.settings import TrainingSettings
from dstbench.store.files import now
from dstbench.testing.checking import Broken, Subject
from dstbench.testing.checks import settings

SECONDS = 60.0
"""Seconds that a tracker may take for a call: in a run, too, it has no more."""

STEPS = 30
BENCHMARK = "trial"


@dataclass
class TrackerSubject(Subject):
    """A tracker, made anew for each run and each cell."""

    cls: type[Tracker]


class Told:
    """An instance of the tracker, told in a thread of its own, as in a run."""

    def __init__(self, subject: TrackerSubject, results: Path) -> None:
        self._aside = Aside()
        try:
            arguments = subject.settings, BENCHMARK, results
            self._tracker = self._call("__init__", subject.cls, *arguments)
        except PluginError as error:
            raise SkipTest(str(error)) from None

    def tell(self, event: str, *what: Any) -> None:
        self._call(event, getattr(self._tracker, event), *what)

    def train(self, *steps: int) -> None:
        """Tell of progress at these steps, and of layers before each."""
        for step in steps:
            self.tell("layers_changed", step - 1, [LayerChange("0.weight", 0.5, step)])
            self.tell("progressed", step, 1 / step, 0.25)

    def _call(self, event: str, function: Any, *arguments: Any) -> Any:
        try:
            return self._aside.call(SECONDS, function, *arguments)
        except TimeoutError:
            raise Broken(f"{event} has not returned after {SECONDS:.0f} seconds") from None


def a_run_is_told(subject: TrackerSubject) -> None:
    """A whole run can be told, of a dense cell and of a sparse one, and nothing is raised."""
    with _results() as results:
        run, cells = Told(subject, results), [_cell(DENSE, 0.0), _cell("static", 0.5)]
        run.tell("run_started", cells)
        for cell in cells:
            told = _started(subject, results, cell)
            told.train(10, 20, STEPS)
            told.tell("cell_ended", _record(cell), _sheet(results))
        run.tell("run_ended", [_record(cell) for cell in cells])


def a_stopped_cell_goes_on(subject: TrackerSubject) -> None:
    """A cell that was stopped can be told of again, from its checkpoint on, by another instance."""
    with _results() as results:
        cell = _cell("static", 0.5)
        stopped = _started(subject, results, cell)
        stopped.train(10, 20)
        stopped.tell("cell_ended", None, None)
        again = _started(subject, results, cell)
        again.train(20, STEPS)
        again.tell("cell_ended", _record(cell), _sheet(results))


def a_cell_without_a_result_is_told(subject: TrackerSubject) -> None:
    """A cell that failed before its first step, of which no score is known, can be told."""
    with _results() as results:
        cell = _cell("static", 0.5)
        told = _started(subject, results, cell)
        failed = Record(
            cell=cell,
            status="failed",
            error="Traceback …\nValueError: was only a trial",
            started=now(),
            environment=environment(torch.device("cpu")),
        )
        told.tell("cell_ended", failed, None)


def instances_live_side_by_side(subject: TrackerSubject) -> None:
    """An instance of a run and those of two cells can be told by turns."""
    with _results() as results:
        run, cells = Told(subject, results), [_cell("static", 0.5), _cell("static", 0.75)]
        run.tell("run_started", cells)
        both = [_started(subject, results, cell) for cell in cells]
        for step in (10, 20, STEPS):
            for told in both:
                told.train(step)
        for told, cell in zip(both, cells, strict=True):
            told.tell("cell_ended", _record(cell), _sheet(results))
        run.tell("run_ended", [_record(cell) for cell in cells])


def training_is_left_alone(subject: TrackerSubject) -> None:
    """What is told draws nothing from the global generators of torch and NumPy, and changes neither
    torch's threads nor its default type."""
    with _results() as results:
        before = _state()
        told = _started(subject, results, _cell("static", 0.5))
        told.train(10, STEPS)
        told.tell("cell_ended", _record(_cell("static", 0.5)), _sheet(results))
        changed = [what for what, value in _state().items() if value != before[what]]
        if changed:
            raise Broken(f"after a cell was told, {' and '.join(changed)} had changed")


def the_current_folder_is_left_alone(subject: TrackerSubject) -> None:
    """What is written lies in the results folder, or elsewhere if a setting says so, and never in
    the current folder."""
    with _results() as results:
        before = {path.name for path in Path.cwd().iterdir()}
        told = _started(subject, results, _cell("static", 0.5))
        told.train(10, STEPS)
        told.tell("cell_ended", _record(_cell("static", 0.5)), _sheet(results))
        if new := {path.name for path in Path.cwd().iterdir()} - before:
            raise Broken(f"the current folder has {', '.join(sorted(new))} now")


CHECKS = (
    *settings.CHECKS,
    a_run_is_told,
    a_stopped_cell_goes_on,
    a_cell_without_a_result_is_told,
    instances_live_side_by_side,
    training_is_left_alone,
    the_current_folder_is_left_alone,
)


@contextmanager
def _results() -> Iterator[Path]:
    with TemporaryDirectory(prefix="dstbench-check-", ignore_cleanup_errors=True) as folder:
        yield Path(folder) / BENCHMARK


def _started(subject: TrackerSubject, results: Path, cell: Cell) -> Told:
    """An instance that was told of the start of a cell."""
    folder = results / "cells" / cell.id
    folder.mkdir(parents=True, exist_ok=True)
    told = Told(subject, results)
    told.tell("cell_started", cell, folder)
    return told


def _cell(sparsifier: str, sparsity: float) -> Cell:
    training = TrainingSettings(steps=STEPS, log_every=10).model_dump(mode="json")
    return Cell(
        model="none",
        dataset="none",
        sparsifier=sparsifier,
        sparsity=sparsity,
        seed=0,
        training=training,
    )


def _record(cell: Cell) -> Record:
    return Record(
        cell=cell,
        status="done",
        started=now(),
        environment=environment(torch.device("cpu")),
        scores=Scores(fid=12.5),
        times=Times(training_step=0.25, training=0.25 * STEPS, sample=0.125),
    )


def _sheet(results: Path) -> Path:
    path = results / "samples.png"
    Image.new("L", (16, 16), 127).save(path)
    return path


def _state() -> dict[str, Any]:
    return {
        "torch's generator": torch.get_rng_state().tolist(),
        "NumPy's generator": str(np.random.get_state()),
        "the number of threads": torch.get_num_threads(),
        "the default type": torch.get_default_dtype(),
    }
