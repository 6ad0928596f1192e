"""The front door: what ``dstbench`` does, from Python.

Its functions are also there as ``dstbench.run`` and so on; the command line calls what they call,
and prints.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dstbench.cache import Cache
from dstbench.cell import Cell
from dstbench.contracts import Availability, Executor, Workspace
from dstbench.errors import ConfigError, DstbenchError, PluginError
from dstbench.exporting.models import export_model, load_model
from dstbench.grid.benchmark import Benchmark
from dstbench.grid.expansion import cells
from dstbench.grid.reader import load_benchmark
from dstbench.grid.selection import select, sparsifiers_named
from dstbench.plugins.isolation import FAILURES
from dstbench.plugins.registry import Plugins, load_plugins
from dstbench.records import Record
from dstbench.report.merged import merge
from dstbench.report.results import Results, load_results
from dstbench.report.site import publish
from dstbench.report.two_results import TwoResults, compare
from dstbench.store.index import without_collector
from dstbench.store.layout import Layout
from dstbench.store.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from dstbench.execution.requirements import Requirement
    from dstbench.execution.scheduler import Scheduler
    from dstbench.planning.planner import Plan

__all__ = ["Results", "TwoResults", "compare", "export_model", "load_model", "load_results",
           "merge", "plan", "publish", "run"]  # fmt: skip

Source = str | Path | Mapping[str, Any]
"""A benchmark: the path of its TOML file, or what one would hold."""
Report = Callable[[str], None]
Jobs = int | Literal["auto"]
"""Cells at a time, each in a process of this machine; ``auto``: as its cores and GPUs, and the size
of the networks, suggest."""

MOST_THREADS = 1024
"""CPU threads of a process at most: torch ends a process that asks for too many."""

logger = logging.getLogger("dstbench")


def run(
    benchmark: Source,
    preset: str | None = None,
    *,
    only: str | Sequence[str] = (),
    skip: str | Sequence[str] = (),
    jobs: Jobs | None = None,
    executor: str | None = None,
    download: bool = False,
    plugins: Sequence[type[Any]] = (),
    results: str | Path = "results",
    device: str = "auto",
    threads: int | None = None,
) -> Results:
    """Train, sample and score every cell of a benchmark that has no result yet.

    Cells that have a result are not run again, and cells whose data is not there are skipped. A
    cell that fails is recorded, and costs no other. Results, with a leaderboard, are kept in the
    folder ``results/NAME``, and are what :func:`load_results` loads. What happens meanwhile is
    logged by the logger ``dstbench``, at level INFO.

    Args:
        benchmark: path of a TOML file, or what one would hold, as a dictionary.
        preset: one of the benchmark's presets.
        only: the cells to run, such as ``"seed=0,1"`` or ``["model=ldm", "sparsity=0.9"]``.
        skip: cells to leave out, in the same form.
        jobs: cells at a time, each in a process of this machine; ``auto``: as its cores and GPUs,
            and the size of the networks, suggest. By default as the benchmark says, else one per
            GPU, without GPUs one, in this process.
        executor: where cells are run, by its plugin's name; by default as the benchmark says.
        download: whether to get datasets and weights that are not there.
        plugins: classes of models, datasets, sparsifiers, feature extractors, metrics, executors
            or trackers that take part beside those that are installed.
        results: folder that holds the results of all benchmarks.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: CPU threads of each process; by default divided up.

    Raises:
        ConfigError: for a benchmark that is wrong, and names all that is.
        PluginError: for plugins that clash, and an executor that fails.
        DataError: before anything is trained, if a dataset cannot be loaded or is too small.
        ScoreError: before anything is trained, if there will be too few images to score.
        StoreError: if the leaderboard cannot be written.
    """
    grid = load_grid(benchmark, preset, only=only, skip=skip, plugins=plugins)
    found = grid.finished(results, logger.info)
    if found is None:
        prepared = grid.prepare(
            results, executor=executor, jobs=jobs, device=device, threads=threads,
            report=logger.info,
        )  # fmt: skip
        found = prepared.run(download=download)
    if found.written_text() is None:
        found.write_report()
    return found


def plan(
    benchmark: Source,
    preset: str | None = None,
    *,
    only: str | Sequence[str] = (),
    skip: str | Sequence[str] = (),
    plugins: Sequence[type[Any]] = (),
    calibrate: bool = False,
    device: str = "auto",
) -> pd.DataFrame:
    """What every cell of a benchmark would cost, one row per cell, without data or training.

    FLOPs are theoretical (a masked weight costs nothing; one multiply-add is one FLOP), sizes are
    in bytes and times in seconds; what cannot be known is NaN, and the column ``problem`` says why.

    Args:
        calibrate: whether to estimate times too, from a few dense training steps taken now on
            ``device``.

    The other arguments, and the errors raised, are those of :func:`run`.
    """
    from dstbench.report.plan import plan_frame

    grid = load_grid(benchmark, preset, only=only, skip=skip, plugins=plugins)
    return plan_frame(grid.plan(device if calibrate else None))


@dataclass(frozen=True)
class Grid:
    """The cells of a benchmark, and those of them that were selected."""

    source: Source
    benchmark: Benchmark
    plugins: Plugins
    cells: Sequence[Cell]
    selected: Sequence[Cell]

    @property
    def layout(self) -> Layout:
        """The layout of the benchmark's leaderboard."""
        file = self.benchmark
        tasks = tuple(f"{task.model} on {task.dataset}" for task in file.tasks)
        sparsifiers = tuple(each for each in file.sparsifiers if each not in file.added)
        return Layout(
            tasks=tasks, sparsifiers=sparsifiers, report=file.report, targets=file.targets
        )

    def plan(self, device: str | None) -> list[Plan]:
        """What each of the selected cells would cost; with times, if there is a device."""
        from dstbench.execution.machine import choose_device
        from dstbench.planning.planner import plan as plan_cells

        return plan_cells(self.selected, self.plugins, choose_device(device) if device else None)

    def finished(self, results: str | Path, report: Report) -> Results | None:
        """The results, if no selected cell is to be run, or sampled in other ways: to know that
        takes few imports."""
        store = Store(Path(results) / self.benchmark.name)
        with without_collector():
            if any(store.is_open(cell) or cell.evaluation.get("also") for cell in self.selected):
                return None
            store.remove_pending_others(self.cells)
            return self.results(store, store.readable(self.selected, report), report)

    def results(self, store: Store, selected: Iterable[Record], report: Report) -> Results:
        """The results of the benchmark: of all its cells, and of whatever else was run under the
        same conditions (of sparsifiers that a command line added, say)."""
        store.clear_away(self.selected)
        chosen = {cell.id for cell in self.selected}
        rest = [cell for cell in self.cells if cell.id not in chosen]
        records = [*selected, *store.readable(rest, report), *store.of_conditions(self.cells)]
        store.keep_index()
        every = [*records, *store.rescored(records)]
        return Results(store, every, self.benchmark.name, self.layout)

    def prepare(
        self,
        results: str | Path,
        *,
        executor: str | None = None,
        jobs: Jobs | None = None,
        device: str = "auto",
        threads: int | None = None,
        report: Report,
        otherwise: Jobs | None = None,
        log_file: Path | None = None,
    ) -> PreparedRun:
        """The run of the selected cells, with all that it takes but their data.

        ``otherwise`` are the jobs of executor ``local`` where neither ``jobs`` nor the benchmark
        says; other processes than this one add what they report to ``log_file``. The other
        arguments are those of :func:`run`.
        """
        where = self._executor(executor, jobs, otherwise)
        if threads is not None and not 1 <= threads <= MOST_THREADS:
            raise ConfigError(f"threads = {threads}: 1 to {MOST_THREADS} would be right")

        import torch

        from dstbench.execution.machine import choose_device
        from dstbench.execution.pipeline import Pipeline
        from dstbench.execution.scheduler import Scheduler
        from dstbench.execution.tracking import Tracking
        from dstbench.execution.worker import RunOptions

        if threads is not None:
            torch.set_num_threads(threads)
        pipeline = Pipeline(self.plugins, Workspace(choose_device(device), Cache(), report))
        execution = self.benchmark.execution
        options = RunOptions(
            device,
            threads,
            execution.minutes_per_cell,
            execution.measure_seconds,
            Tracking(self.benchmark.name, self.benchmark.trackers),
            log_file,
        )
        store = Store(Path(results) / self.benchmark.name)
        return PreparedRun(self, Scheduler(store, pipeline, options), where, report)

    def _executor(
        self, name: str | None, jobs: Jobs | None, otherwise: Jobs | None
    ) -> Executor | None:
        """The executor that is asked for; ``jobs`` goes over what the benchmark says, and that over
        ``otherwise``."""
        name = name or self.benchmark.execution.executor
        if name is None and jobs is None and "local" not in self.plugins.names("executor"):
            return None  # what ships as a plugin may be left out
        name = name or "local"
        cls: type[Executor] = self.plugins.find("executor", name)
        if jobs is not None and name != "local":
            raise ConfigError(f"--jobs is of executor 'local', not of '{name}'")
        try:
            settings = self.benchmark.executors.get(name) or cls.Settings()
            if name == "local":
                jobs = jobs or getattr(settings, "jobs", None) or otherwise
            return cls(settings if jobs is None else settings.model_copy(update={"jobs": jobs}))
        except DstbenchError:
            raise
        except FAILURES as error:
            where = "the benchmark" if isinstance(self.source, Mapping) else self.source
            raise PluginError(
                f"executor '{name}' cannot be constructed with these settings ([executors.{name}] "
                f"in {where}, 'dstbench plugins {name}' lists them): "
                f"{type(error).__name__}: {error}"
            ) from error


def load_grid(
    source: Source,
    preset: str | None = None,
    *,
    only: str | Sequence[str] = (),
    skip: str | Sequence[str] = (),
    plugins: Sequence[type[Any]] = (),
) -> Grid:
    """The grid of a benchmark, and the cells of it that are asked for, as :func:`run` has them."""
    only, skip = _criteria(only), _criteria(skip)
    known = load_plugins(plugins)
    file = Path(source) if isinstance(source, str) else source
    benchmark = load_benchmark(file, known, preset, sparsifiers_named(only))
    grid = cells(benchmark)
    return Grid(file, benchmark, known, grid, select(grid, only, skip))


def _criteria(given: str | Sequence[str]) -> Sequence[str]:
    return [given] if isinstance(given, str) else given


@dataclass(frozen=True)
class PreparedRun:
    """A run that has not begun."""

    grid: Grid
    scheduler: Scheduler
    executor: Executor | None
    report: Report

    @property
    def store(self) -> Store:
        return self.scheduler.store

    def availability(self) -> list[tuple[Requirement, Availability]]:
        """What those of the cells require that have no result, and whether it is there."""
        return self.scheduler.availability(self.grid.selected)

    def run(self, *, download: bool = False) -> Results:
        """The results of the benchmark, once each of the selected cells has a record."""
        self.store.remove_pending_others(self.grid.cells)
        ran = self.scheduler.run(self.grid.selected, download=download, executor=self.executor)
        return self.grid.results(self.store, ran, self.report)
