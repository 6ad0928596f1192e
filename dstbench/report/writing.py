"""The leaderboard as files: text, data, plots, and samples side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dstbench.records import Record
from dstbench.report.cells import cell_frame
from dstbench.report.comparisons import AGAINST_DENSE, Reference
from dstbench.report.formatting import as_csv
from dstbench.report.leaderboard import Table, comparisons_of, tables
from dstbench.report.text import render_tables
from dstbench.store.files import write_atomically


def write_report(
    records: Sequence[Record],
    folder: Path,
    samples: Mapping[str, NDArray[np.uint8]],
    reals: Mapping[str, NDArray[np.uint8]],
    title: str = "Leaderboard",
    reference: Reference = AGAINST_DENSE,
    neighbours: Mapping[str, NDArray[np.uint8]] | None = None,
) -> None:
    """Write ``leaderboard.md`` and its data into ``folder``, and what there is to see.

    Its data are ``leaderboard.csv`` (a line per row), ``cells.csv`` (per cell that is done) and
    ``comparisons.csv`` (per two rows that are compared), with numbers at full precision.

    ``fid_vs_sparsity.png`` and ``fid_vs_flops.png`` are there if a sparse cell has an FID,
    ``fid_vs_step_time.png`` and ``fid_vs_sample_time.png`` if its times were measured too,
    ``samples.png`` if there are samples: uint8 images (n, H, W, C), C = 1 or 3, by the id of their
    cell, the i-th of every cell of a task and seed from the same noise; ``reals`` are real images
    to show above them, in the same form. ``neighbours`` are the training images nearest to the
    first samples; ``neighbours.png`` has them side by side. Every file appears whole or not at all.

    Raises:
        StoreError: there are no records, two of the same cell, or samples of another form.
        ConfigError: there is no method of the reference's name.
    """
    found = tables(records, reference)
    write_tables(found, cell_frame(records), folder, samples, reals, title, neighbours or {})


def write_tables(
    found: Sequence[Table],
    cells: pd.DataFrame,
    folder: Path,
    samples: Mapping[str, NDArray[np.uint8]],
    reals: Mapping[str, NDArray[np.uint8]],
    title: str,
    neighbours: Mapping[str, NDArray[np.uint8]],
) -> None:
    """What :func:`write_report` writes, of tables and the :func:`~dstbench.report.cells.cell_frame`
    of their records."""
    # Drawing libraries take a second to import, and text alone does not need them.
    from dstbench.report.neighbours import neighbour_sheet
    from dstbench.report.plot import fid_vs_sparsity
    from dstbench.report.sheet import sample_sheet
    from dstbench.report.trade_off import fid_vs_cost

    markdown = render_tables(found, "markdown", title)
    done = [record.cell.id for table in found for row in table.rows for record in row.done]
    folder.mkdir(parents=True, exist_ok=True)
    for name, alternative, plot in (
        ("fid_vs_sparsity.png", "FID against sparsity", fid_vs_sparsity(found)),
        ("fid_vs_flops.png", "FID against theoretical FLOPs", fid_vs_cost(found, "flops")),
        ("fid_vs_step_time.png", "FID against time per step", fid_vs_cost(found, "step")),
        ("fid_vs_sample_time.png", "FID against time per sample", fid_vs_cost(found, "sample")),
    ):
        if plot:
            write_atomically(folder / name, partial(plot.savefig, format="png"))
            markdown += f"\n![{alternative}]({name})\n"
        else:  # one of earlier records would say what is no longer so
            (folder / name).unlink(missing_ok=True)
    if sheet := sample_sheet(found, samples, reals):
        write_atomically(folder / "samples.png", lambda path: sheet.save(path, format="png"))
        markdown += "\n![Samples of every row, each column from the same noise](samples.png)\n"
    if pairs := neighbour_sheet(found, samples, neighbours):
        write_atomically(folder / "neighbours.png", lambda path: pairs.save(path, format="png"))
        markdown += "\n![Samples, each beside its nearest training image](neighbours.png)\n"
    for name, text in (
        ("cells.csv", as_csv(cells.loc[done], index=True)),
        ("comparisons.csv", as_csv(comparisons_of(found))),
        ("leaderboard.csv", render_tables(found, "csv")),
        ("leaderboard.md", markdown),
    ):
        write_atomically(folder / name, partial(Path.write_text, data=text, encoding="utf-8"))
