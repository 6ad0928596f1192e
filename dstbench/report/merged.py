"""The results of several people or machines, in one folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dstbench.report.results import Results, load_results
from dstbench.store.files import write_folder
from dstbench.store.merging import Keep, merge_cells


def merge(folders: Sequence[str | Path], to: str | Path, *, keep: Keep | None = None) -> Results:
    """Put the cells of several results folders into a new one, with leaderboard and report.

    The folders stay as they are, and so does what has not ended there. The same cell of several
    is there once, if scores, weights and samples are equal. The new folder appears whole or not
    at all.

    Args:
        folders: results of benchmarks, such as ``results/quickstart``, of anybody: nothing of them
            is executed, and no link in them is followed.
        to: the folder to make.
        keep: which result stays where a cell has several, that of the ``first`` folder or the
            ``last``; by default such cells are refused.

    Raises:
        StoreError: for a folder without records, cells with several results, and where something
            is there already, or nothing can be written.
    """
    to = Path(to)

    def write(unfinished: Path) -> None:
        merge_cells([Path(folder) for folder in folders], unfinished, keep)
        found = load_results(unfinished)
        found.name = to.name
        found.write_report()

    write_folder(to, write)
    return load_results(to)
