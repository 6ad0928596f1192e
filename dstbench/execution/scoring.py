"""From a cell's samples to what its record says of their quality."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

from torch import Tensor

from dstbench import metrics
from dstbench.contracts import Data, FeatureExtractor, Features, Metric, Model, Workspace
from dstbench.execution.kept import last_channel
from dstbench.metrics import Floors
from dstbench.plugins.isolation import FAILURES
from dstbench.records import Floor, Nearest, Protocol, Scores
from dstbench.settings import EvaluationSettings
from dstbench.store.folder import CellFolder

SHOWN_NEIGHBOURS = 12
"""Samples of each cell whose nearest training images are kept."""


@dataclass(frozen=True)
class Scorer:
    """Scores samples of a dataset as a benchmark's ``[evaluation]`` says."""

    data: Data
    dataset: str
    extractor: FeatureExtractor
    evaluation: EvaluationSettings
    metrics: Sequence[Metric]
    workspace: Workspace

    @cached_property
    def real(self) -> Features:
        """The features of the reference split."""
        return self._real(self.evaluation)

    @property
    def protocol(self) -> Protocol:
        return metrics.protocol(
            self.dataset, self.extractor, self.evaluation, self.real, self.metrics
        )

    def score(self, images: Tensor) -> Scores:
        """Scores of uint8 images (N, C, H, W)."""
        return self._score(self.features(images))

    def features(self, images: Tensor) -> Features:
        """The features of samples, uint8 images (N, C, H, W)."""
        return metrics.sample_features(images, self.extractor, self.evaluation)

    def score_all(self, first: Features, further: Iterable[Tensor]) -> dict[str, Any]:
        """The parts of a record that samples make: the features of those of the first noise, and
        images drawn from one further noise after another."""
        found: list[Scores] = []
        interval = None
        for fake in chain([first], map(self.features, further)):
            found.append(self._score(fake))
            if len(found) == 1 and found[0].fid is not None:
                interval = metrics.fid_interval(fake, self.real, self.evaluation.resamples)
        return {
            "scores": Scores.mean_of(found) if len(found) > 1 else found[0],
            "scores_by_noise": tuple(found) if len(found) > 1 else (),
            "fid_interval": interval,
            "protocol": self.protocol,
        }

    def floors(self, model: Model, key: Mapping[str, Any]) -> tuple[Floor, ...]:
        """What samples can hope to score at best, and what real images score that are made worse;
        ``key`` is all that determines the model's first stage."""
        floors = Floors(
            self.data,
            self.extractor,
            self.evaluation,
            self.metrics,
            self.real,
            self.protocol,
            self.workspace,
        )
        order = ("real", "reconstructed", "distorted")
        found = [*floors.of_real_images(), *floors.of_reconstructions(model, key)]
        return tuple(sorted(found, key=lambda floor: order.index(floor.kind)))

    def nearest(self, fake: Features) -> tuple[Tensor, Nearest]:
        """The training images (n, C, H, W) that are nearest to the first samples, and how near
        those of all samples are."""
        training = self.evaluation.model_copy(update={"reference": "train"})
        indices, found = metrics.nearest(fake, self._real(training))
        shown = [self.data.train[index] for index in indices[:SHOWN_NEIGHBOURS].tolist()]
        return self.data.to_images(shown), found

    def beside_real_images(
        self, model: Model, key: Mapping[str, Any], fake: Features, folder: CellFolder | None
    ) -> dict[str, Any]:
        """The parts of a record that set samples beside real images; none where that fails, which
        costs the cell nothing. The nearest training images are kept in ``folder``, in place of
        those of an earlier run."""
        try:
            if folder:
                folder.neighbours.unlink(missing_ok=True)
            floors = self.floors(model, key)
            neighbours, nearest = self.nearest(fake)
        except FAILURES as error:
            self.workspace.report(f"no floors of its scores: {type(error).__name__}: {error}")
            return {}
        if folder:
            folder.write_images(folder.neighbours, last_channel(neighbours))
        return {"floors": floors, "nearest": nearest}

    def _score(self, fake: Features) -> Scores:
        return metrics.score(fake, self.real, self.evaluation, self.metrics)

    def _real(self, evaluation: EvaluationSettings) -> Features:
        return metrics.real_features(
            self.data, self.dataset, self.extractor, evaluation, self.workspace
        )
