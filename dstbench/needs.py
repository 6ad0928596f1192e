"""What cells need that may not be there: datasets, and the weights of feature extractors."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dstbench.contracts import Availability, Dataset, FeatureExtractor, Workspace
from dstbench.grid import Cell
from dstbench.plugins import Plugins
from dstbench.settings import EvaluationSettings

Kind = Literal["dataset", "feature extractor"]


@dataclass(frozen=True)
class Need:
    """A dataset or a feature extractor with its settings, and the cells that need it."""

    kind: Kind
    name: str
    settings: dict[str, Any]
    cells: tuple[Cell, ...]

    def availability(self, plugins: Plugins, workspace: Workspace) -> Availability:
        """Whether it is there. What the plugin raises is raised, of any kind."""
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


def needs(cells: Sequence[Cell]) -> list[Need]:
    """What the cells need, each once: datasets first, in the order of the cells."""
    users: defaultdict[tuple[Kind, str, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        users["dataset", cell.dataset, _text(cell.dataset_settings)].append(cell)
    for cell in cells:
        extractor = EvaluationSettings(**cell.evaluation).extractor
        users["feature extractor", extractor, _text(cell.extractor_settings)].append(cell)
    return [
        Need(kind, name, json.loads(settings), tuple(theirs))
        for (kind, name, settings), theirs in users.items()
    ]


def _text(settings: dict[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)
