"""What has become of the cells of a results folder, as any machine that sees it can tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dstbench.cell import Cell
from dstbench.errors import StoreError
from dstbench.store.claim import Claim
from dstbench.store.folder import CellFolder
from dstbench.store.store import Store

State = Literal["done", "running", "failed", "diverged", "skipped", "waiting", "unreadable"]


@dataclass(frozen=True)
class Status:
    """What has become of one cell."""

    cell: Cell
    state: State
    claim: Claim | None = None
    """The claim of the process that runs it, if it is running."""
    detail: str = ""
    """Why it failed, diverged, was skipped or cannot be read: the last line."""


def statuses(store: Store) -> list[Status]:
    """The status of every cell that was ever requested, by its id.

    A cell is waiting if it was requested and has no record, and no living process runs it.

    Raises :class:`StoreError` if there are no cells.
    """
    found = [status for folder in store.cells() if (status := _status(store, folder))]
    store.keep_index()
    if not found:
        raise StoreError(
            f"{store.folder}: no cells here; name the folder of a benchmark that was run, such as "
            "results/quickstart"
        )
    return found


def _status(store: Store, folder: CellFolder) -> Status | None:
    try:
        record = store.record(folder.path.name)
    except StoreError as error:
        cell = folder.requested_cell()
        return Status(cell, "unreadable", detail=str(error)) if cell else None
    claim = folder.claim()
    if record and not claim:  # nobody runs it again
        return Status(record.cell, record.status, detail=record.reason)
    cell = record.cell if record else folder.requested_cell()
    if cell is None:
        return None
    # Only cells that say who has them are asked: for a moment, whoever asks has the lock.
    if claim and folder.is_held():
        return Status(cell, "running", claim)
    if record is None:
        return Status(cell, "waiting")
    return Status(cell, record.status, detail=record.reason)
