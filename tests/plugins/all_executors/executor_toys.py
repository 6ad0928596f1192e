"""A ``run_cell`` that other processes can be given; the cell's model says what becomes of it."""

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dstbench.contracts import Ended
from dstbench.errors import HeldError
from dstbench.execution.machine import environment
from dstbench.grid import Cell
from dstbench.records import Record
from dstbench.store import Store

HERE = Path(__file__).parent


def make_cell(seed: int, model: str = "good", **training: Any) -> Cell:
    return Cell(
        model=model,
        dataset="toy-images",
        sparsifier="dense",
        sparsity=0,
        seed=seed,
        training=training,
    )


@dataclass(frozen=True)
class Notes:
    """Notes down in ``folder`` who runs each cell, and leaves a record."""

    results: Path
    folder: Path
    device: str = "cpu"
    minutes: float | None = None
    threads: int | None = None

    def __call__(self, cell: Cell) -> None:
        with suppress(HeldError), Store(self.results).cell(cell).locked():
            self._run(cell)

    def into(self, results: Path) -> "Notes":
        return replace(self, results=results)

    def parameters(self, cell: Cell) -> int | None:
        return None

    def report(self, message: str) -> None:
        pass

    def _run(self, cell: Cell) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        note = {
            "pid": os.getpid(),
            "parent": os.getppid(),
            "threads": torch.get_num_threads(),
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", "all"),
            "folder": os.getcwd(),
            "variable": os.environ.get("DSTBENCH_TOY", ""),
            "results": str(self.results),
        }
        with self._path(cell).open("a") as file:
            file.write(json.dumps(note) + "\n")
        tries = len(self.of(cell))
        folder = Store(self.results).cell(cell)
        if cell.model == "dies" or (cell.model == "dies-once" and tries == 1):
            folder.checkpoint.write_text(f"of try {tries}")
            os.kill(os.getpid(), signal.SIGKILL)
        if cell.model == "raises":
            raise ValueError("out of luck")
        if cell.model == "hangs" or (cell.model == "hangs-twice" and tries <= 2):
            time.sleep(60)
        time.sleep(0.2)
        found = folder.checkpoint.read_text() if folder.checkpoint.exists() else "none"
        folder.checkpoint.unlink(missing_ok=True)
        folder.history.write_text(f"checkpoint: {found}")
        folder.write_record(
            Record(
                cell=cell,
                status="diverged",
                error=socket.gethostname(),
                started="2026-01-01T00:00:00+00:00",
                environment=environment(torch.device("cpu")),
            )
        )

    def of(self, cell: Cell) -> list[dict[str, Any]]:
        """One note for each time that the cell was run."""
        with suppress(FileNotFoundError):
            return [json.loads(line) for line in self._path(cell).read_text().splitlines()]
        return []

    def wait_for(self, cell: Cell, tries: int = 1) -> dict[str, Any]:
        """The note of a cell's latest try, when there have been as many."""
        wait_until(lambda: len(self.of(cell)) == tries)
        return self.of(cell)[-1]

    def _path(self, cell: Cell) -> Path:
        return self.folder / f"{cell.id}.txt"


def errors(ended: list[Ended]) -> Mapping[int, str | None]:
    """By seed; every cell has ended once."""
    found = {each.cell.seed: each.error for each in ended}
    assert len(found) == len(ended)
    return found


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "in vain"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Whether there is such a process, other than as what is left of a dead one."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
