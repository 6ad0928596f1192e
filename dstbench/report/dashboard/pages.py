"""What a dashboard shows: an index of benchmarks, and the report of each, made from its records.

Nothing is read by a path that a browser asks for: it names a page, or there is none.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from urllib.parse import quote

from dstbench.cache import digest
from dstbench.errors import DstbenchError, StoreError
from dstbench.report.index_page import Entry, render_index
from dstbench.store.status import State, Status, statuses
from dstbench.store.store import Store

STATES: tuple[State, ...] = (
    "done", "running", "failed", "diverged", "skipped", "waiting", "unreadable",
)  # fmt: skip
"""The states of cells, in the order in which they are counted."""


class LivePages:
    """The pages of a results folder: of all benchmarks in it, or of the one that it is of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[str, LiveBenchmark] = {}
        self._lock = Lock()

    def benchmarks(self) -> dict[str, LiveBenchmark]:
        """The benchmarks there are now, by their names."""
        found = {path.name: path for path in _benchmark_folders(self.folder)}
        with self._lock:
            self._known = {
                name: self._known.get(name) or LiveBenchmark(name, path)
                for name, path in found.items()
            }
            return dict(self._known)

    def index(self) -> str:
        """The page of all benchmarks."""
        entries = self._entries()
        count = f"{len(entries)} benchmark{'s' * (len(entries) != 1)}"
        return render_index(entries, count, live=_version(entries))

    def index_version(self) -> str:
        """What changes when :meth:`index` does."""
        return _version(self._entries())

    def _entries(self) -> list[Entry]:
        return [each.entry() for each in self.benchmarks().values()]


class LiveBenchmark:
    """One benchmark, and its report as of its latest records."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder
        self._store = Store(folder)
        self._looking, self._making = Lock(), Lock()
        self._made = ("", "")

    def entry(self) -> Entry:
        """What the index says of it."""
        with self._looking:
            found = _statuses(self._store)
        counts = Counter(each.state for each in found)
        return Entry(
            self.name,
            f"{quote(self.name)}/",
            {state: counts[state] for state in STATES if counts[state]},
            facts=["; ".join(dict.fromkeys(each.cell.task for each in found))],
            running=[_running(each) for each in found if each.state == "running"],
        )

    def version(self) -> str:
        """What changes when the records do."""
        return digest({name: list(times) for name, *times in _record_times(self._folder)})

    def report(self) -> str:
        """The report, which is made where the records are other than they were."""
        from dstbench.report.page import render_page
        from dstbench.report.results import load_results

        with self._making:
            version = self.version()
            if self._made[0] != version:
                try:
                    found = load_results(self._folder)
                    found.name = self.name
                    text = render_page([found], self.name, live=version)
                except DstbenchError as error:
                    note = Entry(self.name, "../", {}, facts=[str(error)])
                    text = render_index([note], "no report yet", title=self.name, live=version)
                self._made = (version, text)
            return self._made[1]


def _benchmark_folders(folder: Path) -> Iterator[Path]:
    if (folder / "cells").is_dir():
        yield folder.resolve()
        return
    with suppress(OSError):
        names = sorted(name for name in os.listdir(folder) if name.isprintable())
        yield from (folder / name for name in names if (folder / name / "cells").is_dir())


def _statuses(store: Store) -> list[Status]:
    with suppress(StoreError):  # there are no cells yet
        return statuses(store)
    return []


def _running(status: Status) -> tuple[str, ...]:
    claim, cell = status.claim, status.cell
    if claim is None:
        return cell.id, "", "", ""
    loss = "" if claim.loss is None else f"{claim.loss:.4g}"
    return cell.id, claim.since, f"{claim.step} of {cell.training.get('steps', '?')}", loss


def _record_times(folder: Path) -> Iterator[tuple[str, int, int]]:
    """The names, sizes and times of all records, those of other ways of scoring included."""
    for cell in Store(folder).cells():
        with suppress(OSError), os.scandir(cell.path) as entries:
            for entry in entries:
                if entry.name == "record.json" or entry.name.startswith("scores-"):
                    found = entry.stat()
                    yield f"{cell.path.name}/{entry.name}", found.st_size, found.st_mtime_ns


def _version(entries: list[Entry]) -> str:
    return digest({e.name: [dict(e.counts), [list(line) for line in e.running]] for e in entries})
