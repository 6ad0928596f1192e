"""The leaderboard for people: text, a plot, and samples side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dstbench.records import Record
from dstbench.report.leaderboard import tables
from dstbench.report.text import Format, render
from dstbench.store.files import write_atomically

__all__ = ["Format", "render", "write_report"]


def write_report(
    records: Sequence[Record],
    folder: Path,
    samples: Mapping[str, NDArray[np.uint8]],
    title: str = "Leaderboard",
    neighbours: Mapping[str, NDArray[np.uint8]] | None = None,
) -> None:
    """Write ``leaderboard.md`` and ``leaderboard.csv`` into ``folder``, and what there is to see.

    ``fid_vs_sparsity.png`` is there if a sparse cell has an FID, ``fid_vs_step_time.png`` and
    ``fid_vs_sample_time.png`` if its times were measured too, ``samples.png`` if there are samples:
    uint8 images (n, H, W, C), C = 1 or 3, by the id of their cell, the i-th of every cell
    of a task and seed from the same noise. ``neighbours`` are the training images nearest to the
    first of them, in the same form; ``neighbours.png`` has them side by side. Every file appears
    whole or not at all.

    Raises:
        StoreError: there are no records, two of the same cell, or samples of another form.
    """
    # Drawing libraries take a second to import, and text alone does not need them.
    from dstbench.report.neighbours import neighbour_sheet
    from dstbench.report.plot import fid_vs_sparsity
    from dstbench.report.sheet import sample_sheet
    from dstbench.report.trade_off import fid_vs_time

    markdown = render(records, "markdown", title)
    folder.mkdir(parents=True, exist_ok=True)
    found = tables(records)
    for name, alternative, plot in (
        ("fid_vs_sparsity.png", "FID against sparsity", fid_vs_sparsity(found)),
        ("fid_vs_step_time.png", "FID against time per step", fid_vs_time(found, "step")),
        ("fid_vs_sample_time.png", "FID against time per sample", fid_vs_time(found, "sample")),
    ):
        if plot:
            write_atomically(folder / name, partial(plot.savefig, format="png"))
            markdown += f"\n![{alternative}]({name})\n"
    if sheet := sample_sheet(found, samples):
        write_atomically(folder / "samples.png", lambda path: sheet.save(path, format="png"))
        markdown += "\n![Samples of every row, each column from the same noise](samples.png)\n"
    if pairs := neighbour_sheet(found, samples, neighbours or {}):
        write_atomically(folder / "neighbours.png", lambda path: pairs.save(path, format="png"))
        markdown += "\n![Samples, each beside its nearest training image](neighbours.png)\n"
    csv = render(records, "csv")
    write_atomically(
        folder / "leaderboard.csv", lambda path: path.write_text(csv, encoding="utf-8")
    )
    write_atomically(
        folder / "leaderboard.md", lambda path: path.write_text(markdown, encoding="utf-8")
    )
