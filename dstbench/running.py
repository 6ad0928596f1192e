"""A benchmark's grid, and runs of it: what Python and the command line both begin with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dstbench.cache import Cache
from dstbench.cell import Cell
from dstbench.contracts import Availability, Executor, Workspace
from dstbench.errors import ConfigError, DstbenchError, PluginError, StoreError
from dstbench.grid.benchmark import Benchmark
from dstbench.grid.expansion import cells
from dstbench.grid.reader import load_benchmark
from dstbench.grid.selection import select, sparsifiers_named
from dstbench.parallel import MOST
from dstbench.plugins.isolation import FAILURES
from dstbench.plugins.registry import Plugins, load_plugins
from dstbench.records import Record
from dstbench.report.results import Results
from dstbench.store.index import without_collector
from dstbench.store.layout import Layout
from dstbench.store.store import Store

if TYPE_CHECKING:
    import torch

    from dstbench.execution.requirements import Requirement
    from dstbench.execution.scheduler import Scheduler
    from dstbench.planning.planner import Plan

Source = str | Path | Mapping[str, Any]
"""A benchmark: the path of its TOML file, or what one would hold."""
Report = Callable[[str], None]
Jobs = int | Literal["auto"]
"""Cells at a time, each in a process of this machine; ``auto``: as its cores and GPUs, and the size
of the networks, suggest."""


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
        found: list[Record] = []
        problems: list[str] = []
        with without_collector():
            for cell in self.selected:
                try:
                    record = store.record(cell.id)
                except StoreError as error:
                    problems.append(str(error))
                    continue
                if record is None or not record.is_final or cell.evaluation.get("also"):
                    return None
                found.append(record)
            for problem in problems:
                report(problem)
            store.remove_pending_others(self.cells)
            return self.results(store, found, report)

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
        where: tuple[Executor | None, torch.device],
        *,
        device: str = "auto",
        threads: int | None = None,
        report: Report,
        log_file: Path | None = None,
    ) -> PreparedRun:
        """The run of the selected cells, with all that it takes but their data.

        ``where`` is what :meth:`where` has found; other processes than this one add what they
        report to ``log_file``. The other arguments are those of :func:`~dstbench.api.run`.
        """
        executor, on = where

        import torch

        from dstbench.execution.pipeline import Pipeline
        from dstbench.execution.scheduler import Scheduler
        from dstbench.execution.tracking import Tracking
        from dstbench.execution.worker import RunOptions

        if threads is not None:
            torch.set_num_threads(threads)
        pipeline = Pipeline(self.plugins, Workspace(on, Cache(), report))
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
        return PreparedRun(self, Scheduler(store, pipeline, options), executor, report)

    def where(
        self,
        executor: str | None,
        jobs: Jobs | None,
        device: str,
        threads: int | None,
        otherwise: Jobs | None = None,
    ) -> tuple[Executor | None, torch.device]:
        """The executor and the device that are asked for.

        ``otherwise`` are the jobs of executor ``local`` where neither ``jobs`` nor the benchmark
        says. Raises :class:`ConfigError` for what is not there, and too many threads.
        """
        from dstbench.execution.machine import choose_device

        if threads is not None and not 1 <= threads <= MOST:
            raise ConfigError(f"threads = {threads}: 1 to {MOST} would be right")
        return self._executor(executor, jobs, otherwise), choose_device(device)

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
    file = Path(source) if isinstance(source, str) else source
    with without_collector():
        known = load_plugins(plugins)
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
