"""The layout of a leaderboard: what its results folder remembers of the benchmark file."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from dstbench.cell import DENSE
from dstbench.records import Record
from dstbench.settings import ReportSettings, TargetSettings


class Layout(BaseModel):
    """The order of a leaderboard's rows, and how it compares them; kept as ``layout.json``."""

    model_config = ConfigDict(frozen=True)

    tasks: tuple[str, ...] = ()
    """Tasks, such as ``"ldm on digits"``, in the order of the benchmark file."""
    sparsifiers: tuple[str, ...] = ()
    """Sparsifiers in the order of the benchmark file."""
    report: ReportSettings = ReportSettings()
    targets: tuple[TargetSettings, ...] = ()
    """Published scores, in the order of the benchmark file."""

    def arranged(self, records: list[Record]) -> list[Record]:
        """The records in a fixed order: by task, dense first, then by sparsifier, its settings and
        versions, sparsity and seed; what the benchmark file does not name stands behind."""
        tasks = _positions(self.tasks)
        sparsifiers = _positions((DENSE, *self.sparsifiers))
        names = sorted({name for record in records for name in record.cell.sparsifier_settings})

        def key(record: Record) -> tuple[object, ...]:
            cell = record.cell
            return (
                (tasks.get(cell.task, len(tasks)), cell.task),
                (sparsifiers.get(cell.sparsifier, len(sparsifiers)), cell.sparsifier),
                _values(cell.sparsifier_settings, names),
                cell.versions.get("sparsifier", ""),
                (cell.sparsity, cell.seed),
                sorted(cell.versions.items()),
            )

        return sorted(records, key=key)


def _positions(names: tuple[str, ...]) -> dict[str, int]:
    return {name: position for position, name in enumerate(dict.fromkeys(names))}


def _values(settings: dict[str, object], names: list[str]) -> list[tuple[bool, float, str]]:
    """The values of settings as what can be sorted: what is not there, which is as by default,
    first, then words, then numbers by their size."""
    return [
        (True, float(value), "") if isinstance(value, int | float)
        else (False, 0.0, "" if value is None else str(value))
        for value in map(settings.get, names)
    ]  # fmt: skip
