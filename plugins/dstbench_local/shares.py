"""How a machine without GPUs is divided among cells, where nobody says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from dstbench.contracts import RunCell
from dstbench.grid import Cell

LARGE = 10_000_000
"""Parameters of a denoiser from which on its cell has all threads to itself."""

MEMORY = 2 << 30
"""Bytes of the machine's memory for each process: a small cell takes less than half of it."""


class Share(NamedTuple):
    """Cells that are run alike."""

    cells: Sequence[Cell]
    jobs: int
    """Cells at a time, each in a process."""
    threads: int
    """CPU threads of each process."""


def divide(run_cell: RunCell, cells: Sequence[Cell]) -> list[Share]:
    """One-thread processes for cells with small networks, then all threads for each large one.

    The threads of a cell depend on its network alone, never on how many other cells are left, so
    that a run that goes on in several parts has the same results as one in one go.
    """
    import torch
    from joblib import cpu_count

    small: list[Cell] = []
    large: list[Cell] = []
    for cell in cells:
        (large if (run_cell.parameters(cell) or 0) >= LARGE else small).append(cell)
    cores = int(cpu_count())
    threads = run_cell.threads or 1
    jobs = max(1, min(cores // threads, _rooms(), len(small)))
    most = run_cell.threads or min(cores, torch.get_num_threads())  # OpenMP's variables limit it
    shares = [Share(small, jobs, threads), Share(large, 1, most)]
    return [share for share in shares if share.cells]


def told(shares: Sequence[Share]) -> str:
    """The shares in a line."""
    return "; ".join(
        f"{_many(len(share.cells), 'cell')}: {_many(share.jobs, 'process', 'es')} with "
        f"{_many(share.threads, 'thread')} each"
        if share.jobs > 1
        else f"{_many(len(share.cells), 'cell')}, one at a time with "
        f"{_many(share.threads, 'thread')}"
        for share in shares
    )


def _many(count: int, noun: str, ending: str = "s") -> str:
    return f"{count} {noun}{ending if count != 1 else ''}"


def _rooms() -> int:
    """How many processes the machine's memory has room for."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MEMORY
    except (AttributeError, ValueError, OSError):  # a system that does not tell
        return 1 << 10
