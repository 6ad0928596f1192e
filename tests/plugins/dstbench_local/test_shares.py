"""How a machine is divided among cells where nobody says."""

from pathlib import Path

import joblib
import pytest
import torch
from dstbench_local import shares
from dstbench_local.executor import Local
from dstbench_local.shares import Share, divide, told

from dstbench.contracts import RunCell
from dstbench.grid import Cell

SIZES = {"small": 700_000, "large": 274_000_000}


class Sizes:
    """Knows the sizes of networks, and what is reported; runs nothing."""

    results = Path()
    device = "cpu"
    minutes = None

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads
        self.reported: list[str] = []
        self.ran: list[tuple[int, int]] = []

    def __call__(self, cell: Cell) -> None:
        self.ran.append((cell.seed, torch.get_num_threads()))

    def into(self, results: Path) -> RunCell:
        return self

    def parameters(self, cell: Cell) -> int | None:
        return SIZES.get(cell.model)

    def report(self, message: str) -> None:
        self.reported.append(message)


def some(model: str, count: int) -> list[Cell]:
    return [
        Cell(model=model, dataset="d", sparsifier="dense", sparsity=0, seed=seed)
        for seed in range(count)
    ]


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has four cores, and memory enough."""
    monkeypatch.setattr(joblib, "cpu_count", lambda: 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(shares, "_rooms", lambda: 100)


def test_small_networks_have_a_thread_each() -> None:
    cells = some("small", 9)
    assert divide(Sizes(), cells) == [Share(cells, 4, 1)]


def test_no_more_processes_than_cells_but_the_same_threads() -> None:
    """What is left of a grid has the results that it would have had with all of it."""
    cells = some("small", 1)
    assert divide(Sizes(), cells) == [Share(cells, 1, 1)]


def test_a_large_network_has_all_threads() -> None:
    small, large = some("small", 2), some("large", 2)
    assert divide(Sizes(), [*large, *small]) == [Share(small, 2, 1), Share(large, 1, 4)]


def test_a_network_of_unknown_size_is_small() -> None:
    assert divide(Sizes(), some("unknown", 2)) == [Share(some("unknown", 2), 2, 1)]


def test_threads_that_were_asked_for_divide_the_cores() -> None:
    cells = [*some("small", 9), *some("large", 1)]
    assert divide(Sizes(threads=2), cells) == [Share(cells[:9], 2, 2), Share(cells[9:], 1, 2)]


def test_variables_of_openmp_limit_threads_not_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    small, large = some("small", 9), some("large", 1)
    shares = divide(Sizes(), [*small, *large])
    assert shares == [Share(small, 4, 1), Share(large, 1, 1)]
    assert told(shares) == (
        "9 cells: 4 processes with 1 thread each; 1 cell, one at a time with 1 thread"
    )


def test_memory_limits_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "_rooms", lambda: 3)
    assert divide(Sizes(), some("small", 9))[0].jobs == 3
    monkeypatch.setattr(shares, "_rooms", lambda: 0)
    assert divide(Sizes(), some("small", 9))[0].jobs == 1


def test_said_in_a_line() -> None:
    assert told([Share(some("small", 12), 2, 1), Share(some("large", 1), 1, 4)]) == (
        "12 cells: 2 processes with 1 thread each; 1 cell, one at a time with 4 threads"
    )


def test_auto_says_so_and_gives_the_threads_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(shares, "_rooms", lambda: 1)
    before = torch.get_num_threads()
    run_cell = Sizes()
    list(Local(Local.Settings(jobs="auto")).run(run_cell, some("small", 2)))
    assert run_cell.ran == [(0, 1), (1, 1)]
    assert run_cell.reported == ["2 cells, one at a time with 1 thread"]
    assert torch.get_num_threads() == before
