"""The folder of one cell."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from dstbench.cell import Cell
from dstbench.checksums import file_digest
from dstbench.disk import unwritable, write_error
from dstbench.errors import StoreError
from dstbench.files import read_regular
from dstbench.records import Record
from dstbench.store.arrays import read_images, write_images
from dstbench.store.claim import CellLock, Claim
from dstbench.store.files import MOST, FileName, write_atomically
from dstbench.store.record_file import read_record, record_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

T = TypeVar("T")
RecordVersion = tuple[int, int]
"""What tells one record of a cell from the next: its file's number and time."""


class CellFolder:
    """The folder of one cell."""

    history = FileName("history.csv")
    topology = FileName("topology.csv")
    denoiser = FileName("denoiser.safetensors")
    sampling = FileName("sampling.safetensors")
    samples = FileName("samples.npy")
    reals = FileName("reals.npy")
    neighbours = FileName("neighbours.npy")
    sheet = FileName("samples.png")
    checkpoint = FileName("checkpoint.pt")
    previous_checkpoint = FileName("checkpoint.previous.pt")
    timeout = FileName("timeout.txt")
    _request = FileName("cell.json")
    _record = FileName("record.json")

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def _lock(self) -> CellLock:
        return CellLock(self.path)

    @property
    def checkpoints(self) -> list[Path]:
        """The checkpoints that are there, the latest first."""
        return [path for path in (self.checkpoint, self.previous_checkpoint) if path.exists()]

    def remove_checkpoints(self) -> None:
        for path in self.checkpoints:
            path.unlink(missing_ok=True)

    def write_checkpoint(self, state: dict[str, Any]) -> None:
        """Keep a checkpoint, and the one before it, as far as the disk has room for both.

        Raises :class:`StoreError` where it has none, nothing can be written, or another process
        holds the cell by now.
        """
        from dstbench.store.sealed import save_sealed

        def write(path: Path) -> None:
            save_sealed(state, path)
            self._lock.require_held()
            with suppress(FileNotFoundError):
                os.replace(self.checkpoint, self.previous_checkpoint)

        try:
            try:
                write_atomically(self.checkpoint, write)
            except (OSError, RuntimeError) as error:
                if not (unwritable(error, self.path) and self.previous_checkpoint.exists()):
                    raise
                self.previous_checkpoint.unlink()
                write_atomically(self.checkpoint, write)
        except (OSError, RuntimeError) as error:
            reason = unwritable(error, self.path)
            if reason is None:
                raise
            raise StoreError(f"{self.checkpoint}: cannot be written: {reason}") from error

    def set_aside(self, checkpoint: Path) -> Path:
        """Rename a checkpoint that is damaged, so that none is there; where it is now."""
        aside = checkpoint.with_name(f"{checkpoint.name}.damaged")
        os.replace(checkpoint, aside)
        return aside

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the cell, and clear away what a killed process was in the middle of writing.

        Raises:
            HeldError: if another process holds it.
            StoreError: if nothing can be written there, or it is a link to somewhere else.
        """
        died = self._lock.claim()
        with self._lock.held():
            self._clear_away(died)
            yield

    def _clear_away(self, died: Claim | None) -> None:
        """Remove what is unfinished, and what no time limit of the process that died has left."""
        for unfinished in self.path.glob("*.partial"):
            with suppress(OSError):  # what is in nobody's way may stay
                if unfinished.is_dir() and not unfinished.is_symlink():
                    shutil.rmtree(unfinished)
                else:
                    unfinished.unlink()
        with suppress(OSError, ValueError):
            begun = datetime.fromisoformat(died.since).timestamp() if died else math.inf
            if self.timeout.lstat().st_mtime < begun:
                self.timeout.unlink()

    def is_held(self) -> bool:
        """Whether some process holds the cell, on whatever machine."""
        return self._lock.is_held()

    def heartbeat(self, step: int, loss: float, steps: int | None = None) -> None:
        """Say, every few seconds at most, how far the process is that holds the cell."""
        self._lock.heartbeat(step, loss, steps)

    def has_claim(self) -> bool:
        """Whether :meth:`claim` may have something to say."""
        return os.path.lexists(self.path / "running.json")

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
            self._lock.refuse_links()
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self._request, lambda path: path.write_text(text, encoding="utf-8"))
        except OSError as error:
            raise write_error(error, self.path) from None

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
        found = self._sealed()
        return found and found[0]

    def _sealed(self) -> tuple[Record, dict[str, str]] | None:
        """The record, and the checksums of the files that it stands for."""
        try:
            return read_record(self._record)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write_record(self, record: Record) -> None:
        """Keep a record, and in it checksums of what a cell that is done has left; what was made of
        an earlier one's weights is removed.

        Raises :class:`StoreError`, and leaves everything as it is, where it could not be read back
        as it is, or another process holds the cell by now.
        """
        images = self.samples, self.reals, self.neighbours
        kept = {
            path.name: file_digest(path)
            for path in (self.denoiser, self.sampling, *images, self.history, self.topology)
            if record.status == "done" and path.is_file()
        }
        text = record_text(record, kept)

        def write(path: Path) -> None:
            with path.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            read_record(path)

        self.write(self._record, write)
        for path in self.path.glob("scores-*.json"):
            path.unlink()

    def write_denoiser(self, denoiser: nn.Module, masks: Mapping[str, Tensor]) -> int:
        """Keep the trained network, of masked weights the active values alone; its tensors' bytes.

        ``masks`` (bool) are by parameter name. :meth:`denoiser_state` reads it again.
        """
        from dstbench.store.weights import write_network

        sizes: list[int] = []
        self.write(self.denoiser, lambda path: sizes.append(write_network(path, denoiser, masks)))
        return sizes[0]

    def denoiser_state(self) -> dict[str, Tensor]:
        """The ``state_dict()`` of the trained network, on the CPU, with zeros outside the masks.

        Raises :class:`StoreError` for a file that cannot be read.
        """
        from dstbench.store.weights import read_state

        return self.read(self.denoiser, read_state)

    def write(self, path: Path, write: Callable[[Path], object]) -> None:
        """Let ``write`` write a file here, unless another process holds the cell by now."""

        def held(unfinished: Path) -> None:
            write(unfinished)
            self._lock.require_held()

        write_atomically(path, held)

    def read(self, path: Path, read: Callable[[Path], T]) -> T:
        """What ``read`` reads from :attr:`denoiser` or :attr:`sampling`.

        Raises :class:`StoreError` for a file that cannot be read.
        """
        from safetensors import SafetensorError

        try:
            self._check(path)
            return read(path)
        except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
            raise StoreError(f"{path}: cannot be read: {error}") from error

    def _check(self, path: Path) -> None:
        """Raise ``ValueError`` for a file that is not what its record says was written, and
        ``OSError`` for one that is no file."""
        sealed = self._sealed()
        found = file_digest(path)
        if sealed and sealed[1].get(path.name, found) != found:
            raise ValueError("its content is not what was written")

    def read_table(self, path: Path) -> bytes:
        """The content of :attr:`history` or :attr:`topology`, CSV.

        Raises :class:`StoreError` for a file that cannot be read.
        """
        try:
            self._check(path)
            return read_regular(path, MOST)
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: cannot be read: {error}") from error

    def read_images(self, path: Path) -> NDArray[np.uint8]:
        """The images in :attr:`samples`, :attr:`reals` or :attr:`neighbours`, uint8 (n, H, W, C).

        Raises :class:`StoreError` for a file that cannot be read.
        """
        try:
            self._check(path)
            return read_images(path)
        except (OSError, ValueError, EOFError) as error:
            raise StoreError(f"{path}: cannot be read: {error}") from error

    def write_images(self, path: Path, images: NDArray[np.uint8]) -> None:
        """Keep images there, uint8 (n, H, W, C), unless another process holds the cell by now."""
        self._lock.require_held()
        write_images(path, images)
