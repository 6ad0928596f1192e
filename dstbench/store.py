"""What is on disk: one folder per cell, one atomic record.

::

    results/<benchmark>/cells/<cell id>/
        record.json            the result; a cell without one is not finished
        history.csv            loss and speed every few steps
        denoiser.safetensors   the trained network: the averaged weights that are sampled from
        samples.png            a grid of samples
        samples.npy            the same samples, uint8 (n, H, W, C), for the leaderboard's sheet
        checkpoint.pt          only while the cell is unfinished
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout
from pydantic import ValidationError

from dstbench.errors import StoreError
from dstbench.grid import Cell
from dstbench.records import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a file that appears at ``path`` whole or not at all."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.partial")
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

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the cell, and clear away what a killed process was in the middle of writing.

        Raises :class:`StoreError` if another process holds it, or if nothing can be written there.
        """
        lock = FileLock(self.path / "lock")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise StoreError(f"cell {self.path.name} is being run by another process") from None
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be written to: {error.strerror}") from None
        try:
            for unfinished in self.path.glob("*.partial"):
                unfinished.unlink()
            yield
        finally:
            lock.release()

    def record(self) -> Record | None:
        """The cell's record, if it has ended.

        Raises :class:`StoreError` for a record that this version of dstbench cannot read.
        """
        path = self.path / "record.json"
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
        write_atomically(
            self.path / "record.json", lambda path: path.write_text(text, encoding="utf-8")
        )

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
