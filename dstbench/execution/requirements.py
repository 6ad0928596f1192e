"""What cells require that may not be there: datasets, and feature extractors' weights."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dstbench.cache import canonical
from dstbench.cell import Cell
from dstbench.contracts import Availability, Dataset, FeatureExtractor, Workspace
from dstbench.plugins.registry import Plugins

Kind = Literal["dataset", "feature extractor"]


@dataclass(frozen=True)
class Requirement:
    """A dataset or a feature extractor with its settings, and the cells that need it."""

    kind: Kind
    name: str
    settings: dict[str, Any]
    cells: tuple[Cell, ...]

    def availability(self, plugins: Plugins, workspace: Workspace) -> Availability:
        """Whether what is required is there. Raises whatever the plugin raises."""
        found: object
        if self.kind == "dataset":
            datasets: type[Dataset] = plugins.find(self.kind, self.name)
            found = datasets(datasets.Settings(**self.settings)).availability(workspace)
        else:
            extractors: type[FeatureExtractor] = plugins.find(self.kind, self.name)
            found = extractors.availability(extractors.Settings(**self.settings), workspace)
        if not isinstance(found, Availability):
            raise TypeError(
                f"{self.kind} '{self.name}': availability() returned {found!r}; an Availability "
                "would be right"
            )
        return found


def requirements(cells: Sequence[Cell]) -> list[Requirement]:
    """What the cells need, each once: datasets first, in the order of the cells."""
    users: defaultdict[tuple[Kind, str, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        users["dataset", cell.dataset, canonical(cell.dataset_settings)].append(cell)
    for cell in cells:
        extractor = cell.evaluation_settings.extractor
        users["feature extractor", extractor, canonical(cell.extractor_settings)].append(cell)
    return [
        Requirement(kind, name, json.loads(settings), tuple(theirs))
        for (kind, name, settings), theirs in users.items()
    ]
