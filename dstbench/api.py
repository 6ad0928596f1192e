"""The front door: what ``dstbench`` does, from Python.

Its functions are also there as ``dstbench.run`` and so on; the command line calls what they call,
and prints.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dstbench.exporting.models import export_model, load_model
from dstbench.report.merged import merge
from dstbench.report.results import Results, load_results
from dstbench.report.site import publish
from dstbench.report.two_results import TwoResults, compare
from dstbench.running import Jobs, Source, load_grid

if TYPE_CHECKING:
    import pandas as pd


__all__ = ["Results", "TwoResults", "compare", "export_model", "load_model", "load_results",
           "merge", "plan", "publish", "run"]  # fmt: skip

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
    where = grid.where(executor, jobs, device, threads)
    found = grid.finished(results, logger.info)
    if found is None:
        prepared = grid.prepare(results, where, device=device, threads=threads, report=logger.info)
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
