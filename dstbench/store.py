"""What is on disk: one folder per cell, one atomic record.

::

    results/<benchmark>/cells/<cell id>/
        record.json            the result; a cell without one is not finished
        history.csv            loss and speed every few steps
        denoiser.safetensors   the trained network: the averaged weights that are sampled from
        samples.png            a grid of samples
        samples.npy            the same samples, uint8 (n, H, W, C), for the leaderboard's sheet
        checkpoint.pt          only while the cell is unfinished
        cell.json              what was asked for, before there is a record
        lock, running.json     held by the process that runs the cell; which that is, and its step
        stuck.txt              where a process was when its time limit ended it

A lock is the operating system's: it goes with its process, however that ends.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from dstbench.errors import HeldError, StoreError
from dstbench.grid import Cell
from dstbench.records import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

# All that executors need of it.
__all__ = ["CellFolder", "RecordVersion", "Store", "write_atomically"]

SECONDS_BETWEEN_CLAIMS = 2
"""How often a process says at which step it is, at most."""


RecordVersion = tuple[int, int]
"""What tells one record of a cell from the next: its file's number and time."""


class Claim(BaseModel):
    """Which process runs a cell, and how far it is."""

    model_config = ConfigDict(frozen=True)

    host: str
    pid: int
    since: str
    """ISO 8601, UTC."""
    step: int = 0
    loss: float | None = None
    """Of that step; ``None`` before the first."""


def now() -> str:
    """ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a file that appears at ``path`` whole or not at all."""
    unfinished = path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}.partial")
    try:
        write(unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


class CellFolder:
    """The folder of one cell."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.history = path / "history.csv"
        self.denoiser = path / "denoiser.safetensors"
        self.samples = path / "samples.npy"
        self.sheet = path / "samples.png"
        self.checkpoint = path / "checkpoint.pt"
        self.stuck = path / "stuck.txt"
        self._asked = path / "cell.json"
        self._running = path / "running.json"
        self._record = path / "record.json"
        self._claim: Claim | None = None
        self._claimed_at = 0.0

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the cell, and clear away what a killed process was in the middle of writing.

        Raises:
            HeldError: if another process holds it.
            StoreError: if nothing can be written there.
        """
        lock = FileLock(self.path / "lock")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise HeldError(f"cell {self.path.name} is being run by another process") from None
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be written to: {error.strerror}") from None
        try:
            for unfinished in self.path.glob("*.partial"):
                unfinished.unlink()
            self._write_claim(Claim(host=socket.gethostname(), pid=os.getpid(), since=now()))
            yield
        finally:
            self._running.unlink(missing_ok=True)
            lock.release()

    def is_held(self) -> bool:
        """Whether some process holds the cell, on whatever machine."""
        if not (self.path / "lock").exists():
            return False
        lock = FileLock(self.path / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        except OSError:  # of somebody else's folder, which one may only read
            return self._running.exists()
        lock.release()
        return False

    def tell(self, step: int, loss: float) -> None:
        """Say, every few seconds at most, how far the process is that holds the cell."""
        if self._claim and time.monotonic() - self._claimed_at >= SECONDS_BETWEEN_CLAIMS:
            self._write_claim(self._claim.model_copy(update={"step": step, "loss": loss}))

    def claim(self) -> Claim | None:
        """What the process that holds the cell, or held it when it was killed, last said."""
        with suppress(OSError, ValidationError):
            return Claim.model_validate_json(self._running.read_bytes())
        return None

    def _write_claim(self, claim: Claim) -> None:
        self._claim, self._claimed_at = claim, time.monotonic()
        write_atomically(self._running, lambda path: path.write_text(claim.model_dump_json()))

    def ask(self, cell: Cell) -> None:
        """Leave word that the cell is to be run.

        Raises :class:`StoreError` if nothing can be written there.
        """
        text = cell.model_dump_json(indent=2) + "\n"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._asked.write_text(text, encoding="utf-8")
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be written to: {error.strerror}") from None

    def asked(self) -> Cell | None:
        """The cell that is to be run here, or was, if this version of dstbench can read it."""
        with suppress(OSError, ValidationError):
            return Cell.model_validate_json(self._asked.read_bytes())
        return None

    def forget_if_unbegun(self) -> None:
        """Remove the folder if there is nothing in it but the cell that was asked for."""
        with suppress(OSError):
            if [path.name for path in self.path.iterdir()] == [self._asked.name]:
                self._asked.unlink()
                self.path.rmdir()

    def version(self) -> RecordVersion | None:
        """Of the cell's record; ``None``: there is none."""
        with suppress(OSError):
            found = self._record.stat()
            return found.st_ino, found.st_mtime_ns
        return None

    def last_words(self) -> str:
        """Where the process was that a time limit ended here; empty if none was."""
        with suppress(OSError):
            return self.stuck.read_text(errors="replace")
        return ""

    def record(self) -> Record | None:
        """The cell's record, if it has ended.

        Raises :class:`StoreError` for a record that this version of dstbench cannot read.
        """
        path = self._record
        try:
            return Record.model_validate_json(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            raise StoreError(
                f"{path}: not a record of this version of dstbench ({where}: {problem['msg']}); "
                "move it away to run the cell again"
            ) from None

    def write_record(self, record: Record) -> None:
        text = record.model_dump_json(indent=2) + "\n"
        write_atomically(self._record, lambda path: path.write_text(text, encoding="utf-8"))

    def write_denoiser(self, denoiser: nn.Module) -> None:
        """Keep the trained network; ``safetensors.torch.load_model`` reads it into another."""
        from safetensors.torch import save_model

        write_atomically(self.denoiser, lambda path: save_model(denoiser, str(path)))

    def write_samples(self, images: NDArray[np.uint8]) -> None:
        """Keep sample images, uint8 (n, H, W, C)."""
        import numpy as np
        from PIL import Image

        def save(path: Path) -> None:
            with path.open("wb") as file:
                np.save(file, images, allow_pickle=False)

        write_atomically(self.samples, save)
        columns = int(np.ceil(np.sqrt(len(images))))
        rows = -(-len(images) // columns)
        padding = np.zeros((rows * columns - len(images), *images.shape[1:]), np.uint8)
        tiles = np.concatenate([images, padding]).reshape(rows, columns, *images.shape[1:])
        grid = tiles.transpose(0, 2, 1, 3, 4).reshape(
            rows * images.shape[1], columns * images.shape[2], images.shape[3]
        )
        picture = Image.fromarray(grid.squeeze(2) if grid.shape[2] == 1 else grid)
        write_atomically(self.sheet, lambda path: picture.save(path, format="png"))


class Store:
    """The folder of one benchmark's results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def cell(self, cell: Cell) -> CellFolder:
        return CellFolder(self.folder / "cells" / cell.id)

    def cells(self) -> list[CellFolder]:
        """The folders of all cells that were ever asked for, by their names."""
        return [CellFolder(path) for path in sorted((self.folder / "cells").glob("*/"))]

    def forget_others(self, cells: Sequence[Cell]) -> None:
        """Forget which cells were asked for beside these and never begun, of an earlier benchmark
        file perhaps."""
        ids = {cell.id for cell in cells}
        for folder in self.cells():
            if folder.path.name not in ids:
                folder.forget_if_unbegun()

    def records(self) -> list[Record]:
        """The records of all ended cells, in the order in which they were run.

        Raises :class:`StoreError` if there are none.
        """
        folders = sorted((self.folder / "cells").glob("*/record.json"))
        records = [CellFolder(path.parent).record() for path in folders]
        found = [record for record in records if record is not None]
        if not found:
            raise StoreError(
                f"{self.folder}: no records here; name the folder of a benchmark that was run, "
                "such as results/quickstart"
            )
        return sorted(found, key=lambda record: record.started)

    def samples(self, records: list[Record]) -> dict[str, NDArray[np.uint8]]:
        """The sample images of these records' cells, where they have any, by cell id."""
        import numpy as np

        paths = {record.cell.id: self.cell(record.cell).samples for record in records}
        return {
            name: np.load(path, allow_pickle=False) for name, path in paths.items() if path.exists()
        }
