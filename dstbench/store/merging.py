"""The cells of several results folders, in one.

A folder may be a stranger's: what is known by its name is copied, up to a size, and read from the
copy. Links are not followed.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from dstbench.cache import canonical
from dstbench.checksums import file_digest
from dstbench.disk import unwritable
from dstbench.errors import StoreError
from dstbench.files import copy_regular
from dstbench.records import Scores
from dstbench.store.files import MOST
from dstbench.store.layout import Layout
from dstbench.store.record_file import LARGEST, read_record
from dstbench.store.store import LAYOUT, LONGEST_LAYOUT, Store

Keep = Literal["first", "last"]
"""Whose result stays where two folders have different ones of a cell."""

RECORD, WEIGHTS, SAMPLES = "record.json", "denoiser.safetensors", "samples.npy"

SIZES = {
    RECORD: LARGEST,
    WEIGHTS: 2**37,
    "sampling.safetensors": 2**37,
    SAMPLES: 2**32,
    "reals.npy": 2**32,
    "neighbours.npy": 2**32,
    "samples.png": MOST,
    "history.csv": MOST,
    "topology.csv": MOST,
}
"""Bytes at most of what a cell that has ended leaves behind, by name."""

_SCORES = re.compile(r"scores-[0-9a-f]{12}\.json")
MOST_SCORES = 1000
"""Ways in which a cell was scored again, at most."""

LISTED = 10
"""Cells that an error lists, at most."""

logger = logging.getLogger("dstbench")


def merge_cells(folders: Sequence[Path], to: Path, keep: Keep | None) -> None:
    """Copy the cells that have ended, and the layouts, of results folders into an empty one.

    The same cell of two folders is there once where scores, weights and samples are equal; one
    without a result gives way to one that has it. A cell that cannot be read is left out, with a
    warning.

    Raises:
        StoreError: for a folder without records, and for cells with several results, unless
            ``keep`` says which.
        OSError: if nothing can be written.
    """
    (to / "cells").mkdir()
    incoming = to / "incoming"
    origins: dict[str, Path] = {}
    conflicts: list[str] = []
    for folder in folders:
        found = False
        for cell in _cells(folder):
            if _taken(cell, incoming):
                found = True
                there = to / "cells" / cell.name
                if cell.name not in origins:
                    os.rename(incoming, there)
                elif differing := _add(incoming, there, keep):
                    conflicts.append(
                        f"{cell.name}: {differing} in {origins[cell.name]} and {folder}"
                    )
                if not incoming.exists():
                    origins[cell.name] = folder
            shutil.rmtree(incoming, ignore_errors=True)
        if not found:
            raise StoreError(
                f"{folder}: no records here; name the folder of a benchmark that was run, such as "
                "results/quickstart"
            )
    if conflicts:
        raise StoreError(_refusal(conflicts))
    Store(to).write_layout(_layout(folders, to))


def _cells(folder: Path) -> Iterator[Path]:
    """The folders of cells, less those that are links."""
    cells = folder / "cells"
    if cells.is_symlink():
        raise StoreError(f"{cells}: a link, which is not followed")
    for name in Store(folder).names():
        if (cells / name).is_symlink():
            logger.warning("%s: left out: a link, which is not followed", cells / name)
        else:
            yield cells / name


def _taken(cell: Path, incoming: Path) -> bool:
    """Whether the cell has ended, and is now in the new folder ``incoming`` as its record says."""
    incoming.mkdir()
    try:
        copy_regular(cell / RECORD, incoming / RECORD, SIZES[RECORD])
        record, sums = read_record(incoming / RECORD)
        if record.cell.id != cell.name:
            raise StoreError(f"its record is of another cell, {record.cell.id}")
        for name, most in _others(cell):
            try:
                digest = copy_regular(cell / name, incoming / name, most)
                if sums.get(name, digest) != digest:
                    raise OSError("its content is not what was written")
            except OSError as error:
                if unwritable(error, incoming):
                    raise
                (incoming / name).unlink(missing_ok=True)
                if name in (WEIGHTS, SAMPLES):
                    raise StoreError(f"{name}: {error.strerror or error}") from None
                logger.warning("%s: left out: %s", cell / name, error.strerror or error)
    except FileNotFoundError:
        return False
    except (OSError, StoreError) as error:
        if unwritable(error, incoming):
            raise
        logger.warning("%s: left out: %s", cell, str(error).removeprefix(f"{incoming / RECORD}: "))
        return False
    return True


def _others(cell: Path) -> Iterator[tuple[str, int]]:
    """What is to be copied beside a record, and its size at most."""
    with os.scandir(cell) as entries:
        names = {entry.name for entry in entries}
    yield from ((name, most) for name, most in SIZES.items() if name in names - {RECORD})
    scores = sorted(name for name in names if _SCORES.fullmatch(name))
    yield from ((name, LARGEST) for name in scores[:MOST_SCORES])


def _add(incoming: Path, there: Path, keep: Keep | None) -> str:
    """Put a cell to the same one that is there already; what differs, where that decides nothing
    and ``keep`` does not."""
    old, new = _Ended(there), _Ended(incoming)
    differing = old.differences(new)
    if old.record.is_final != new.record.is_final:
        newer = new.record.is_final
    elif differing and old.record.is_final and keep is None:
        return ", ".join(differing)
    else:
        newer = bool(differing) and keep == "last"
    if newer:
        shutil.rmtree(there)
        os.rename(incoming, there)
    elif not differing:
        return _add_files(old, new, keep)
    return ""


class _Ended:
    """A cell that was copied, and what its result is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record, self.sums = read_record(path / RECORD)

    def sum(self, name: str) -> str | None:
        """The checksum of a file of its, which need not be there."""
        with suppress(OSError):
            return self.sums.get(name) or file_digest(self.path / name)
        return None

    def differences(self, other: _Ended) -> list[str]:
        """What is another result in the other one, in words."""
        old, new = self.record, other.record
        found = []
        if old.status != new.status:
            found.append(f"{old.status} and {new.status}")
        found += _score_differences(old.scores or Scores(), new.scores or Scores())
        for name, word in ((WEIGHTS, "weights"), (SAMPLES, "samples")):
            sums = {self.sum(name), other.sum(name)} - {None}
            found += [f"other {word}"] if len(sums) > 1 else []
        return found


def _score_differences(old: Scores, new: Scores) -> list[str]:
    names = [name for name in Scores.model_fields if name != "others"]
    names += sorted(old.others.keys() | new.others.keys())
    return [
        f"{name} {old.get(name)} and {new.get(name)}"
        for name in names
        if canonical(old.get(name)) != canonical(new.get(name))
    ]


def _add_files(old: _Ended, new: _Ended, keep: Keep | None) -> str:
    """Take what a cell has beside the same result of the one that is there: other ways in which it
    was scored, weights that were not given along; which of the scores differ."""
    differing = []
    for path in sorted(new.path.iterdir()):
        there = old.path / path.name
        if not _SCORES.fullmatch(path.name):
            if not there.exists() and old.sums.get(path.name) == new.sum(path.name):
                os.rename(path, there)
        elif not there.exists() or keep == "last":
            os.replace(path, there)
        elif keep is None:
            first, last = (_scores(each) for each in (there, path))
            differing += [f"scored again, {each}" for each in _score_differences(first, last)]
    return ", ".join(differing)


def _scores(path: Path) -> Scores:
    with suppress(StoreError):
        return read_record(path)[0].scores or Scores()
    return Scores()


def _refusal(conflicts: Sequence[str]) -> str:
    cells = "1 cell has" if len(conflicts) == 1 else f"{len(conflicts)} cells have"
    more = len(conflicts) - LISTED
    return "\n".join(
        [
            f"{cells} different results in these folders; nothing is merged unless --keep says "
            "which stay, first or last",
            *conflicts[:LISTED],
            *([f"and {more} more"] if more > 0 else []),
        ]
    )


def _layout(folders: Sequence[Path], to: Path) -> Layout:
    """The orders and published scores of all folders, one after the other, and the margin of the
    first."""
    found = []
    for folder in folders:
        with suppress(OSError):
            copy_regular(folder / LAYOUT, to / LAYOUT, LONGEST_LAYOUT)
            found.append(Store(to).layout())
        (to / LAYOUT).unlink(missing_ok=True)
    if not found:
        return Layout()
    return Layout(
        tasks=tuple(dict.fromkeys(task for each in found for task in each.tasks)),
        sparsifiers=tuple(dict.fromkeys(name for each in found for name in each.sparsifiers)),
        report=found[0].report,
        targets=tuple(dict.fromkeys(target for each in found for target in each.targets)),
    )
