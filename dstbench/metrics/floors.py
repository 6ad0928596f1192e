"""Floors of a table: scores of images that no model has generated."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dstbench.contracts import Data, FeatureExtractor, Features, Metric, Model, Split, Workspace
from dstbench.errors import ScoreError
from dstbench.metrics.distorted import DISTORTIONS
from dstbench.metrics.features import extract_in_parts
from dstbench.metrics.scores import score
from dstbench.records import Floor, Protocol
from dstbench.settings import EvaluationSettings

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
"""Version of what is cached; a change of what the lines are counts it up."""

Make = Callable[[Sequence[int]], "Tensor"]
"""Makes uint8 images (N, C, H, W) of the items at some indices."""


@dataclass(frozen=True)
class Floors:
    """Scores of real images, and of such made worse, under the protocol of a table's cells.

    Each line is computed once and cached. It is of as many images as a cell has samples, or of all
    there are; a line that the metrics have too few images for is left out.
    """

    data: Data
    extractor: FeatureExtractor
    settings: EvaluationSettings
    metrics: Sequence[Metric]
    real: Features
    protocol: Protocol
    workspace: Workspace

    def of_real_images(self) -> list[Floor]:
        """The held-out images against the reference split, or half of it against the other where
        nothing is held out; and images of the reference split made worse."""
        return self._cached({}, self._real_images)

    def of_reconstructions(self, model: Model, key: Mapping[str, Any]) -> list[Floor]:
        """Images of the reference split as the model's first stage makes them, if it has one.

        ``key`` is all that determines the first stage.
        """
        return self._cached(key, lambda folder: self._reconstructed(model, folder))

    def _real_images(self, folder: Path) -> Iterator[Floor]:
        import torch

        split = self.settings.reference
        other: Split = "validation" if split == "train" else "train"
        held_out = len(self.data.split(other))
        with suppress(ScoreError):
            if held_out > self.settings.neighbours:
                chosen = _some(held_out, self.settings.samples)
                fake = self._features(chosen, self._items(other), folder / "real")
                yield self._floor(f"real ({other})", "real", fake, self.real)
            else:
                first, second = torch.tensor_split(_permuted(len(self.real.features)), 2)
                half = _rows(self.real, first[: self.settings.samples])
                name = "real (half against half)"
                yield self._floor(name, "real", half, _rows(self.real, second))
        chosen = _some(len(self.real.features), self.settings.samples)
        make = self._items(split)
        for name, distort in DISTORTIONS.items():
            with suppress(ScoreError):
                fake = self._features(chosen, make, folder / name, distort)
                yield self._floor(f"real, {name}", "distorted", fake, self.real)

    def _reconstructed(self, model: Model, folder: Path) -> Iterator[Floor]:
        import torch

        split = self.settings.reference
        if model.reconstructions(split, torch.tensor([0])) is None:
            return

        def make(rows: Sequence[int]) -> Tensor:
            items = model.reconstructions(split, torch.tensor(rows))
            assert items is not None
            return self.data.to_images(items)

        chosen = _some(len(self.real.features), self.settings.samples)
        with suppress(ScoreError):
            fake = self._features(chosen, make, folder / "reconstructed")
            yield self._floor("real, through the first stage", "reconstructed", fake, self.real)

    def _items(self, split: Split) -> Make:
        items = self.data.split(split)
        return lambda rows: self.data.to_images([items[row] for row in rows])

    def _features(
        self,
        chosen: Sequence[int],
        make: Make,
        path: Path,
        distort: Callable[[Tensor], Tensor] = lambda images: images,
    ) -> Features:
        """Features of images that are kept as they are made, in a file named after ``path``."""
        return extract_in_parts(
            len(chosen),
            self.settings.batch_size,
            lambda rows: distort(make([chosen[row] for row in rows])),
            self.extractor,
            path.with_name(f"{path.name}.partial"),
        )

    def _floor(self, name: str, kind: Any, fake: Features, real: Features) -> Floor:
        return Floor(
            name=name,
            kind=kind,
            images=len(fake.features),
            reference_images=len(real.features),
            scores=score(fake, real, self.settings, self.metrics),
        )

    def _cached(
        self, key: Mapping[str, Any], make: Callable[[Path], Iterator[Floor]]
    ) -> list[Floor]:
        def write(folder: Path) -> None:
            found = [floor.model_dump(mode="json") for floor in make(folder)]
            (folder / "floors.json").write_text(json.dumps(found, indent=2))

        whole = {
            "format": FORMAT,
            "data": self.data.fingerprint,
            "protocol": self.protocol.model_dump(mode="json"),
            "metrics": [metric.name for metric in self.metrics],
            **key,
        }
        folder = self.workspace.cache.folder("floors", whole, write, resumable=True)
        return [Floor(**each) for each in json.loads((folder / "floors.json").read_text())]


def _permuted(count: int) -> Tensor:
    import torch

    return torch.randperm(count, generator=torch.Generator().manual_seed(0))


def _some(count: int, at_most: int) -> list[int]:
    """Indices of some of ``count`` images, the same each time, in their order."""
    return sorted(_permuted(count)[:at_most].tolist())


def _rows(features: Features, rows: Tensor) -> Features:
    logits = features.logits
    return Features(features.features[rows], None if logits is None else logits[rows])
