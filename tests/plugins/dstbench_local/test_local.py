"""Cells in processes of this machine."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from dstbench_local import executor
from dstbench_local.executor import Local

from dstbench.contracts import Ended
from dstbench.grid import Cell


def make_cell(
    sparsifier: str = "dense", sparsity: float = 0, seed: int = 0, model: str = "ldm"
) -> Cell:
    return Cell(model=model, dataset="digits", sparsifier=sparsifier, sparsity=sparsity, seed=seed)


@dataclass
class Note:
    """Notes down who runs each cell, and does what the cell's seed asks for."""

    results: Path
    device: str = "cpu"
    minutes: float | None = None
    threads: int | None = None

    def __call__(self, cell: Cell) -> None:
        text = f"{os.getpid()} {torch.get_num_threads()} {os.environ.get(executor.VISIBLE, '')}"
        with (self.results / cell.id).open("a") as file:
            file.write(f"{text}\n")
        if cell.seed == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if cell.seed == 2:
            raise ValueError("out of luck")
        if cell.seed == 3:
            os._exit(7)
        time.sleep(60 if cell.seed == 4 else 0.2)

    def into(self, results: Path) -> "Note":
        return Note(results)

    def parameters(self, cell: Cell) -> int | None:
        return None

    def report(self, message: str) -> None:
        pass


def notes(cells: list[Cell], folder: Path) -> list[list[str]]:
    """Process, threads and GPUs of each cell, which was run once."""
    lines = [(folder / cell.id).read_text().splitlines() for cell in cells]
    assert {len(each) for each in lines} == {1}
    return [each[0].split(" ") for each in lines]


def test_alone_in_this_process(tmp_path: Path) -> None:
    cells = [make_cell(), make_cell("static", 0.5)]
    assert list(Local(Local.Settings()).run(Note(tmp_path), cells)) == [*map(Ended, cells)]
    assert {process for process, *_ in notes(cells, tmp_path)} == {str(os.getpid())}


def test_a_time_limit_takes_a_process(tmp_path: Path) -> None:
    cells = [make_cell(), make_cell("static", 0.5)]
    run_cell = Note(tmp_path, minutes=1)
    assert list(Local(Local.Settings()).run(run_cell, cells)) == [*map(Ended, cells)]
    (process,) = {process for process, *_ in notes(cells, tmp_path)}
    assert process != str(os.getpid())


def test_every_cell_once_in_two_processes_that_divide_the_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    cells = [make_cell("static", sparsity) for sparsity in (0.1, 0.2, 0.3, 0.4, 0.5)]
    ended = list(Local(Local.Settings(jobs=2)).run(Note(tmp_path), cells))
    assert sorted(ended, key=lambda e: e.cell.sparsity) == [*map(Ended, cells)]
    found = notes(cells, tmp_path)
    assert len({process for process, *_ in found} - {str(os.getpid())}) == 2
    assert {threads for _, threads, _ in found} == {"2"}


def test_threads_that_were_asked_for(tmp_path: Path) -> None:
    cells = [make_cell(), make_cell("static", 0.5)]
    list(Local(Local.Settings(jobs=2)).run(Note(tmp_path, threads=3), cells))
    assert {threads for _, threads, _ in notes(cells, tmp_path)} == {"3"}


def test_each_process_has_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    cells = [make_cell("static", sparsity) for sparsity in (0.1, 0.2, 0.3)]
    list(Local(Local.Settings()).run(Note(tmp_path, device="cuda"), cells))
    assert {gpu for *_, gpu in notes(cells, tmp_path)} == {"0", "1"}


def test_gpus_as_the_environment_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(executor.VISIBLE, "5,GPU-a")
    cells = [make_cell("static", sparsity) for sparsity in (0.1, 0.2, 0.3, 0.4)]
    list(Local(Local.Settings(jobs=3)).run(Note(tmp_path, device="cuda"), cells))
    assert {gpu for *_, gpu in notes(cells, tmp_path)} == {"5", "GPU-a"}


def test_a_cell_whose_process_dies_has_failed_and_the_others_go_on(tmp_path: Path) -> None:
    cells = [make_cell("static", 0.5, seed=seed) for seed in (1, 2, 3, 5, 6)]
    ended = list(Local(Local.Settings(jobs=2)).run(Note(tmp_path), cells))
    errors = {each.cell.seed: each.error for each in ended}
    assert len(ended) == 5
    assert errors[1] == "its process died: SIGKILL, perhaps for want of memory"
    assert "ValueError: out of luck" in (errors[2] or "")
    assert errors[3] == "its process died: exit code 7"
    assert errors[5] is errors[6] is None
    notes(cells, tmp_path)


def test_who_stops_listening_leaves_no_process_behind(tmp_path: Path) -> None:
    cells = [make_cell("static", 0.5, seed=seed) for seed in (5, 4, 6)]
    running = Local(Local.Settings(jobs=2)).run(Note(tmp_path), cells)
    assert next(running).cell.seed == 5
    deadline = time.monotonic() + 60
    while not (tmp_path / cells[1].id).exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    running.close()  # type: ignore[attr-defined]
    for process, *_ in notes(cells[:2], tmp_path):
        with pytest.raises(ProcessLookupError):
            os.kill(int(process), 0)


def test_tasks_take_turns() -> None:
    ldm, chirodiff = "ldm", "chirodiff"
    cells = [
        make_cell("static", 0.5, seed, model)
        for model, seeds in ((ldm, (0, 1, 2)), (chirodiff, (0, 1)))
        for seed in seeds
    ]
    turns = [(cell.model, cell.seed) for cell in executor._by_turns(cells)]
    assert turns == [(ldm, 0), (chirodiff, 0), (ldm, 1), (chirodiff, 1), (ldm, 2)]
