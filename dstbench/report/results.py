"""The results of a benchmark, to look into from Python."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from dstbench.cell import DENSE, Cell
from dstbench.disk import write_error
from dstbench.errors import ConfigError, StoreError, did_you_mean
from dstbench.records import Protocol, Record
from dstbench.report import costs
from dstbench.report.comparisons import Reference
from dstbench.report.written import note_written, state_of, written_text
from dstbench.store.folder import CellFolder
from dstbench.store.layout import Layout
from dstbench.store.store import Store

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from dstbench.report.leaderboard import Table
    from dstbench.report.text import Format

logger = logging.getLogger("dstbench")

_HISTORY = {
    "step": "int64", "loss": "float64", "seconds_per_step": "float64", "topology_updates": "int64"
}  # fmt: skip
_TOPOLOGY = {"step": "int64", "layer": "str", "density": "float64", "changed": "int64"}


class Results:
    """What the cells of a benchmark have left behind."""

    def __init__(
        self,
        store: Store,
        records: Sequence[Record],
        name: str,
        layout: Layout,
        reference: Reference | None = None,
    ) -> None:
        self._store = store
        self._layout = layout
        self.reference = reference or Reference(margin=layout.report.margin)
        """What the rows of the leaderboard are compared with, and by what margin."""
        self.name = name
        """The benchmark's name."""
        self.records = layout.arranged(list(_that_make_sense(records)))
        """The record of each cell that has ended, well or not, in the order of the leaderboard."""

    def __repr__(self) -> str:
        states = Counter(record.status for record in self.records)
        counts = ", ".join(f"{count} {state}" for state, count in states.items())
        return f"Results({str(self.folder)!r}: {counts or 'no cells'})"

    @property
    def folder(self) -> Path:
        """The folder that holds them."""
        return self._store.folder

    @cached_property
    def tables(self) -> list[Table]:
        """The tables of the leaderboard, one per task and protocol."""
        from dstbench.report.leaderboard import tables

        try:
            return tables(self.records, self.reference, self._layout.targets)
        except ConfigError as error:
            raise ConfigError(f"{self.folder}: {error}") from None

    @cached_property
    def table(self) -> pd.DataFrame:
        """The leaderboard: one row per task, method and sparsity, with means and standard
        deviations over seeds (see :func:`dstbench.report.leaderboard.leaderboard`)."""
        from dstbench.report.leaderboard import leaderboard_frame

        return leaderboard_frame(self.tables)

    @cached_property
    def comparisons(self) -> pd.DataFrame:
        """One row per score and two rows of the leaderboard that are compared: paired differences
        over seeds, with intervals and tests (see
        :func:`dstbench.report.leaderboard.comparison_frame`)."""
        from dstbench.report.leaderboard import comparisons_of

        return comparisons_of(self.tables)

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row per cell, by its id: every setting that differs, and every score, count and time
        (see :func:`dstbench.report.cells.cell_frame`)."""
        from dstbench.report.cells import cell_frame

        return cell_frame(self.records)

    def history(self, cell: str | Cell) -> pd.DataFrame:
        """The training of a cell, given by its id or as it is: columns ``step``, ``loss`` (mean
        since the row before), ``seconds_per_step`` and ``topology_updates``.

        Raises :class:`~dstbench.errors.StoreError` where there is none, or one that is damaged.
        """
        folder = self._folder(cell)
        path = _there(folder.history, "the cell was never trained")
        return _table(folder, path, _HISTORY)

    def topology(self, cell: str | Cell) -> pd.DataFrame:
        """The densities of a sparse cell's layers over time: columns ``step``, ``layer``,
        ``density`` and ``changed`` (connections that the topology update there replaced or added).

        Raises :class:`~dstbench.errors.StoreError` where there are none, or they are damaged.
        """
        folder = self._folder(cell)
        path = _there(folder.topology, "the cell has no masks, or was never trained")
        return _table(folder, path, _TOPOLOGY)

    def samples(self, cell: str | Cell) -> NDArray[np.uint8]:
        """The sample images that are kept of a cell: uint8 (n, H, W, C).

        The i-th of every cell of a task and seed starts from the same noise.

        Raises :class:`~dstbench.errors.StoreError` where there are none.
        """
        folder = self._folder(cell)
        return folder.read_images(_there(folder.samples, "the cell was not trained to its end"))

    def reals(self, cell: str | Cell) -> NDArray[np.uint8]:
        """Some of the real images that a cell's samples were scored against, in the same form.

        Raises :class:`~dstbench.errors.StoreError` where none are kept.
        """
        folder = self._folder(cell)
        return folder.read_images(_there(folder.reals, "none were kept of this cell"))

    def neighbours(self, cell: str | Cell) -> NDArray[np.uint8]:
        """The training images that are nearest to the first samples, by the extractor's features.

        Raises :class:`~dstbench.errors.StoreError` where none are kept.
        """
        folder = self._folder(cell)
        return folder.read_images(_there(folder.neighbours, "none were kept of this cell"))

    def text(self, format: Format = "markdown") -> str:
        """The leaderboard, with notes on how its numbers came about."""
        from dstbench.report.text import render_tables

        return render_tables(self.tables, format, self.name)

    def write_report(self, to: str | Path | None = None) -> None:
        """Write the leaderboard, its data, its pictures and ``report.html`` into a folder, by
        default that of the results, if there are records.

        Raises :class:`~dstbench.errors.StoreError` where nothing can be written there.
        """
        from dstbench.report.page import write_page
        from dstbench.report.writing import write_tables

        if not self.records:
            return
        shown = self._shown()
        samples, reals = self._store.samples(shown), self._store.reals(shown)
        neighbours = self._store.neighbours(shown)
        folder = self.folder if to is None else Path(to)
        try:
            write_tables(self.tables, self.cells, folder, samples, reals, self.name, neighbours)
            write_page([self], folder / "report.html", self.name)
            if to is None:
                self._store.write_layout(self._layout)
                note_written(folder, self._state, self.text())
        except OSError as error:
            raise write_error(error, folder) from None

    def written_text(self) -> str | None:
        """:meth:`text`, if :meth:`write_report` has written just this report and all its files are
        still there."""
        return written_text(self.folder, self._state)

    @cached_property
    def _state(self) -> str:
        """A hash (hex) of all that a report tells of."""
        layout = self._layout.model_dump_json()
        records = (record.model_dump_json() for record in self.records)
        return state_of([version("dstbench"), self.name, repr(self.reference), layout, *records])

    def _shown(self) -> list[Record]:
        """The records whose samples are shown: in each table, those of one seed."""
        seeds: dict[tuple[str, Protocol | None], int] = {}
        for record in self.records:
            table = record.cell.kin, record.protocol
            if table not in seeds and self._store.cell(record.cell).samples.exists():
                seeds[table] = record.cell.seed
        return [r for r in self.records if seeds.get((r.cell.kin, r.protocol)) == r.cell.seed]

    def _folder(self, cell: str | Cell) -> CellFolder:
        name = cell.id if isinstance(cell, Cell) else cell
        if name not in self._known:
            problem = did_you_mean(name, self._known)
            raise StoreError(f"{self.folder}: no cell '{name}'; {problem}")
        return self._store.cell(self._known[name])

    @cached_property
    def _known(self) -> dict[str, Cell]:
        return {record.cell.id: record.cell for record in self.records}


def load_results(
    folder: str | Path, *, against: str = DENSE, margin: float | None = None
) -> Results:
    """The results of a benchmark that was run, such as ``results/quickstart``.

    Args:
        against: the method that rows are compared with, by its name in the leaderboard: dense, or
            another, at the same sparsity. An unknown one raises
            :class:`~dstbench.errors.ConfigError` once rows are compared.
        margin: the difference that would not matter, as a fraction of that method's mean score; by
            default as the benchmark said when it was last run.

    Raises :class:`~dstbench.errors.StoreError` where there are none.
    """
    store = Store(Path(folder))
    records, layout = store.records(), store.layout()
    reference = Reference(against, layout.report.margin if margin is None else margin)
    every = [*records, *store.rescored(records)]
    return Results(store, every, store.folder.resolve().name, layout, reference)


def _there(path: Path, why_not: str) -> Path:
    if not path.exists():
        raise StoreError(f"{path}: not there; {why_not}")
    return path


def _table(folder: CellFolder, path: Path, types: Mapping[str, str]) -> pd.DataFrame:
    """The columns, by their types, of a table that a training has left behind.

    Raises :class:`~dstbench.errors.StoreError` where it is damaged.
    """
    import pandas as pd

    try:
        content = BytesIO(folder.read_table(path))
        frame = pd.read_csv(content, dtype=dict(types), usecols=list(types))
    except (ValueError, OverflowError) as error:  # damaged before there were checksums
        raise StoreError(f"{path}: cannot be read: {error}") from error
    return frame[list(types)]


def _that_make_sense(records: Sequence[Record]) -> Iterator[Record]:
    """The records but those whose numbers are nonsense (nothing divided by nothing), which a
    warning names: they cost no other cell its row."""
    for record in records:
        try:
            costs.check(record)
        except (ArithmeticError, ValueError) as error:
            logger.warning(
                "cell %s: its record makes no sense and is left out: %s", record.cell.id, error
            )
        else:
            yield record
