"""The folder of one cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from dstbench.cell import Cell
from dstbench.errors import StoreError
from dstbench.files import read_regular
from dstbench.records import Record
from dstbench.store.claim import CellLock, Claim
from dstbench.store.files import MOST, write_atomically

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

RecordVersion = tuple[int, int]
"""What tells one record of a cell from the next: its file's number and time."""


class CellFolder:
    """The folder of one cell."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.history = path / "history.csv"
        self.denoiser = path / "denoiser.safetensors"
        self.samples = path / "samples.npy"
        self.reals = path / "reals.npy"
        self.sheet = path / "samples.png"
        self.checkpoint = path / "checkpoint.pt"
        self.timeout = path / "timeout.txt"
        self._request = path / "cell.json"
        self._record = path / "record.json"
        self._lock = CellLock(path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the cell, and clear away what a killed process was in the middle of writing.

        Raises:
            HeldError: if another process holds it.
            StoreError: if nothing can be written there.
        """
        with self._lock.held():
            for unfinished in self.path.glob("*.partial"):
                unfinished.unlink()
            yield

    def is_held(self) -> bool:
        """Whether some process holds the cell, on whatever machine."""
        return self._lock.is_held()

    def heartbeat(self, step: int, loss: float) -> None:
        """Say, every few seconds at most, how far the process is that holds the cell."""
        self._lock.heartbeat(step, loss)

    def claim(self) -> Claim | None:
        """What the process that holds the cell, or held it when it was killed, last said."""
        return self._lock.claim()

    def files(self) -> list[Path]:
        """The files to copy where the cell is to be on another machine, its record last: all but
        those of the process that holds it."""
        found = set(self.path.iterdir()) - self._lock.files
        return sorted(found, key=lambda path: (path == self._record, path.name))

    def request(self, cell: Cell) -> None:
        """Leave word that the cell is to be run.

        Raises :class:`StoreError` if nothing can be written there.
        """
        text = cell.model_dump_json(indent=2) + "\n"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._request.write_text(text, encoding="utf-8")
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be written to: {error.strerror}") from None

    def requested_cell(self) -> Cell | None:
        """The cell that is to be run here, or was, if this version of dstbench can read it."""
        with suppress(OSError, ValidationError):
            return Cell.model_validate_json(read_regular(self._request, MOST))
        return None

    def remove_if_pending(self) -> None:
        """Remove the folder if there is nothing in it but the cell that was requested."""
        with suppress(OSError):
            if [path.name for path in self.path.iterdir()] == [self._request.name]:
                self._request.unlink()
                self.path.rmdir()

    def version(self) -> RecordVersion | None:
        """What tells the cell's record from others; ``None`` where there is none."""
        with suppress(OSError):
            found = self._record.stat()
            return found.st_ino, found.st_mtime_ns
        return None

    def timeout_traceback(self) -> str:
        """The traceback of the process that a time limit ended here; empty if none was."""
        with suppress(OSError):
            return read_regular(self.timeout, MOST).decode(errors="replace")
        return ""

    def record(self) -> Record | None:
        """The cell's record, if it has ended.

        Raises :class:`StoreError` for a record that this version of dstbench cannot read.
        """
        path = self._record
        try:
            return Record.model_validate_json(read_regular(path, MOST))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error.strerror}") from None
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

    def write_denoiser(self, denoiser: nn.Module, masks: Mapping[str, Tensor]) -> int:
        """Keep the trained network, of masked weights the active values alone; the bytes of its
        tensors.

        ``masks`` (bool) are by parameter name. :meth:`denoiser_state` reads it again.
        """
        from dstbench.store.weights import write_network

        sizes: list[int] = []
        write_atomically(
            self.denoiser, lambda path: sizes.append(write_network(path, denoiser, masks))
        )
        return sizes[0]

    def denoiser_state(self) -> dict[str, Tensor]:
        """The ``state_dict()`` of the trained network, on the CPU, with zeros outside the masks.

        Raises :class:`StoreError` for a file that cannot be read.
        """
        from dstbench.store.weights import read_state

        return self._read_denoiser(read_state)

    def denoiser_masks(self) -> dict[str, Tensor]:
        """The masks (bool) of the trained network's sparse weights, by parameter name.

        Raises :class:`StoreError` for a file that cannot be read.
        """
        from dstbench.store.weights import read_masks

        return self._read_denoiser(read_masks)

    def _read_denoiser(self, read: Callable[[Path], dict[str, Tensor]]) -> dict[str, Tensor]:
        from safetensors import SafetensorError

        try:
            return read(self.denoiser)
        except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
            raise StoreError(f"{self.denoiser}: cannot be read: {error}") from error

    def write_samples(self, images: NDArray[np.uint8]) -> None:
        """Keep sample images, uint8 (n, H, W, C)."""
        _write_array(self.samples, images)

    def write_reals(self, images: NDArray[np.uint8]) -> None:
        """Keep real images to show beside the samples, uint8 (n, H, W, C)."""
        _write_array(self.reals, images)


def _write_array(path: Path, images: NDArray[np.uint8]) -> None:
    import numpy as np

    def save(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, images, allow_pickle=False)

    write_atomically(path, save)
