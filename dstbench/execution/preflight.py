"""What can be known before anything is trained: which cells cannot be run, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from dstbench.cell import Cell
from dstbench.contracts import Availability
from dstbench.errors import DataError, DstbenchError, ScoreError
from dstbench.execution.batches import check_size
from dstbench.execution.pipeline import Pipeline
from dstbench.execution.requirements import Requirement, requirements
from dstbench.metrics.features import require_neighbours
from dstbench.plugins.isolation import FAILURES, call_with_timeout, isolate
from dstbench.plugins.plugin import Kind

Unable = Literal["skipped", "failed"]
"""Status of a cell that is not run: its data is not there; one of its plugins fails."""


@dataclass
class Preflight:
    """Tries the plugins of cells, looks for their data, downloads and loads it."""

    pipeline: Pipeline
    minutes: float | None = None
    """Time limit of a cell, and of loading a dataset."""

    def availability(self, cells: Sequence[Cell]) -> list[tuple[Requirement, Availability]]:
        """What the cells require, and whether it is there; what cannot be told, because its plugin
        fails, is left out."""
        known = []
        for requirement in requirements(cells):
            with suppress(*FAILURES):
                known.append((requirement, self._availability(requirement)))
        return known

    def unable(self, cells: Sequence[Cell], download: bool) -> dict[str, tuple[Unable, str]]:
        """The status and the reason of each cell that cannot be run, by its id.

        What can be downloaded is, if ``download`` is asked for.

        Raises:
            DataError: if a dataset cannot be loaded or is too small.
            ScoreError: if there will be too few images to score.
        """
        unable: dict[str, tuple[Unable, str]] = {}

        def note(cells: Sequence[Cell], status: Unable, reason: str) -> None:
            unable.update({cell.id: (status, reason) for cell in cells})

        def able(cells: Sequence[Cell]) -> list[Cell]:
            return [cell for cell in cells if cell.id not in unable]

        for cell in cells:
            with isolate(partial(note, [cell], "failed")):
                self._try_plugins(cell)
        for requirement in requirements(able(cells)):
            waiting = able(requirement.cells)
            with isolate(partial(note, waiting, "failed"), but=(DstbenchError,)):
                if waiting and (reason := self._reason(requirement, download)):
                    note(waiting, "skipped", reason)
        for requirement in requirements(able(cells)):
            if requirement.kind == "dataset":
                theirs = requirement.cells
                with isolate(partial(note, theirs, "failed"), but=(DstbenchError,)):
                    call_with_timeout(self.minutes, partial(self._check_data, theirs))
        failures = Counter(reason for status, reason in unable.values() if status == "failed")
        for reason, times in failures.items():
            last_line = reason.strip().splitlines()[-1]
            self.pipeline.workspace.report(f"cells that cannot be run: {times} ({last_line})")
        return unable

    def _try_plugins(self, cell: Cell) -> None:
        """Raise what the cell's plugins would, as far as it is quick to know."""
        plugins: tuple[tuple[Kind, str, dict[str, Any]], ...] = (
            ("model", cell.model, cell.model_settings),
            ("dataset", cell.dataset, cell.dataset_settings),
            ("feature extractor", cell.evaluation_settings.extractor, cell.extractor_settings),
        )
        for kind, name, settings in plugins:
            self.pipeline.plugins.find(kind, name).Settings(**settings)
        self.pipeline.metrics(cell)
        self.pipeline.sparsifier(cell)

    def _availability(self, requirement: Requirement) -> Availability:
        return requirement.availability(self.pipeline.plugins, self.pipeline.workspace)

    def _reason(self, requirement: Requirement, download: bool) -> str | None:
        """Why cells cannot be run that have this requirement; ``None`` where they can. What is to
        be downloaded is, here."""
        availability = self._availability(requirement)
        what = f"{requirement.kind} '{requirement.name}'"
        if availability.state == "ready":
            return None
        if availability.state == "missing":
            return availability.detail or f"{what} is not there"
        if not download:
            return f"{what} is not downloaded yet ({availability.detail})"
        try:
            self._get(requirement)
        except (DataError, ScoreError) as error:
            # What is wrong with data that is there by now, is found where all data is checked.
            after = self._availability(requirement)
            return None if after.state == "ready" else str(error)
        return None

    def _get(self, requirement: Requirement) -> None:
        if requirement.kind == "dataset":
            self.pipeline.load(requirement.cells[0])
        else:
            self.pipeline.extractor(requirement.cells[0])

    def _check_data(self, cells: Sequence[Cell]) -> None:
        """Whether there are enough images to train each cell with, and to score it."""
        for cell in cells:
            evaluation = cell.evaluation_settings
            reference = evaluation.reference
            try:
                data = self.pipeline.load(cell)
                check_size(len(data.train), cell.training_settings)
                require_neighbours(len(data.split(reference)), f"{reference} images", evaluation)
                require_neighbours(evaluation.samples, "samples", evaluation)
            except (DataError, ScoreError) as error:
                raise type(error)(f"{cell.task}: {error}") from None
