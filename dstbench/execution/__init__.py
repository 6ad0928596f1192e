"""The way from cells to records.

:mod:`~dstbench.execution.scheduler` runs a grid's cells until each has a record; what may be
missing is found out first, by :mod:`~dstbench.execution.preflight`; each cell is given to a
:mod:`~dstbench.execution.worker`, in whatever process, which takes it through the
:mod:`~dstbench.execution.pipeline` and keeps its record.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from dstbench.contracts import Ended
from dstbench.errors import StoreError
from dstbench.stopping import Held

if TYPE_CHECKING:
    from dstbench.cell import Cell
    from dstbench.contracts import RunCell

__all__ = ["Held", "in_this_process"]  # all that plugins need of it


def in_this_process(run_cell: RunCell, cells: Sequence[Cell]) -> Iterator[Ended]:
    """Run the cells one after another, here."""
    for cell in cells:
        try:
            run_cell(cell)
        except StoreError as error:
            yield Ended(cell, str(error))
        except Exception:  # costs no other cell
            yield Ended(cell, traceback.format_exc())
        else:
            yield Ended(cell)
