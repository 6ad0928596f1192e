"""Who holds a cell: the lock of its folder, and what the process that has it says of its progress.

A lock is the operating system's: it goes with its process, however that ends. One on a file system
of another machine goes, too, when that machine has not heard of this one for long, and nobody is
told: what the process that holds a cell last said is in the folder for as long as it holds it.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from dstbench.disk import unwritable
from dstbench.errors import HeldError, StoreError
from dstbench.files import read_regular
from dstbench.store.files import MOST, now, write_atomically

SECONDS_BETWEEN_HEARTBEATS = 2
"""How often a process says at which step it is, at most."""


class Claim(BaseModel):
    """The process that runs a cell, and how far it is."""

    model_config = ConfigDict(frozen=True)

    host: str
    pid: int
    since: str
    """Begin of the hold, ISO 8601 in UTC."""
    step: int = 0
    loss: float | None = None
    """The loss of that step; ``None`` before the first."""
    steps: int | None = None
    """Number of steps of the training, where it is not the one of the cell's settings."""

    def is_of(self, other: Claim) -> bool:
        """Whether the same process has made both, of the same hold."""
        return (self.host, self.pid, self.since) == (other.host, other.pid, other.since)


class CellLock:
    """The lock of a cell's folder, and the claim of the process that holds it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = folder / "lock"
        self._running = folder / "running.json"
        self._claim: Claim | None = None
        self._claimed_at = 0.0

    @property
    def files(self) -> frozenset[Path]:
        """What belongs to the process that holds the folder, and stays with it."""
        return frozenset({self._lock, self._running})

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the cell.

        Raises:
            HeldError: if another process holds it.
            StoreError: if nothing can be written there, or it is a link to somewhere else.
        """
        lock = FileLock(self._lock)
        try:
            self.refuse_links()
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise HeldError(f"cell {self.folder.name} is being run by another process") from None
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            try:
                self._write(Claim(host=socket.gethostname(), pid=os.getpid(), since=now()))
            except OSError as error:
                raise self._unwritable(error) from None
            yield
        finally:
            with suppress(OSError):  # the folder may have been moved meanwhile
                if not self._is_lost():
                    self._running.unlink(missing_ok=True)
            self._claim = None
            lock.release()

    def is_held(self) -> bool:
        """Whether some process holds the cell, on whatever machine."""
        with suppress(OSError):  # a lock that is not there, or that nobody can hold
            descriptor = os.open(self._lock, os.O_RDONLY | os.O_NONBLOCK)
            try:
                # Somebody else's folder, too, may be asked, which one may only read.
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            finally:
                os.close(descriptor)
        return False

    def require_held(self) -> None:
        """Raise :class:`HeldError` if this process held the cell, and another one does by now."""
        if self._is_lost():
            raise HeldError(
                f"cell {self.folder.name} is being run by another process, since this machine was "
                "cut off from the results folder"
            )

    def _is_lost(self) -> bool:
        said = self.claim() if self._claim else None
        return said is not None and self._claim is not None and not said.is_of(self._claim)

    def heartbeat(self, step: int, loss: float, steps: int | None = None) -> None:
        """Say, every few seconds at most, how far the process is that holds the cell; where that
        cannot be written, it is left unsaid.

        Raises :class:`HeldError` if another process holds the cell by now.
        """
        due = time.monotonic() - self._claimed_at >= SECONDS_BETWEEN_HEARTBEATS
        if self._claim and due:
            self.require_held()
            with suppress(OSError):
                update = {"step": step, "loss": loss, "steps": steps}
                self._write(self._claim.model_copy(update=update))

    def claim(self) -> Claim | None:
        """What the process that holds the cell, or held it when it was killed, last said."""
        with suppress(OSError, ValidationError):
            return Claim.model_validate_json(read_regular(self._running, MOST))
        return None

    def refuse_links(self) -> None:
        """Raise ``OSError`` where something would be written to another place than it seems."""
        for path in (self.folder.parent, self.folder, self._lock):
            if path.is_symlink():
                raise OSError(f"{path.name} is a link, which is not followed")

    def _unwritable(self, error: OSError) -> StoreError:
        reason = unwritable(error, self.folder) or error.strerror or error
        return StoreError(f"{self.folder}: cannot be written to: {reason}")

    def _write(self, claim: Claim) -> None:
        self._claim, self._claimed_at = claim, time.monotonic()
        write_atomically(self._running, lambda path: path.write_text(claim.model_dump_json()))
