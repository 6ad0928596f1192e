"""What a record says of the quality of samples: scores, how they were made, what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Literal

from pydantic import BaseModel, ConfigDict

from dstbench.settings import EvaluationSettings


class Part(BaseModel):
    """The base of all parts of a record: unknown keys are refused, values never change."""

    # NaN and infinity are what they are, and not null, which no number can be read back from.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class Quantity(Part):
    """A number that a metric gives, as tables show it."""

    name: str
    """A word, under which records keep it: ``"fid"``."""
    title: str
    better: Literal["lower", "higher"]
    decimals: int = 3


class Scores(Part):
    """Scores of one set of samples. A score that was not asked for is ``None``."""

    fid: float | None = None
    kid: float | None = None
    kid_std: float | None = None
    """Standard deviation over the subsets of one evaluation, not over seeds."""
    inception_score: float | None = None
    inception_score_std: float | None = None
    precision: float | None = None
    recall: float | None = None
    others: dict[str, float] = {}
    """Scores by further metrics, by the names of their quantities."""

    def get(self, name: str) -> float | None:
        """The score of this name, if there is one."""
        found: float | None = self.others.get(name, getattr(self, name, None))
        return found

    @classmethod
    def mean_of(cls, scores: Sequence[Scores]) -> Scores:
        """The mean of several, score by score; what one of them lacks is ``None``."""

        def mean(values: Sequence[float | None]) -> float | None:
            known = [value for value in values if value is not None]
            return fmean(known) if len(known) == len(values) else None

        fields = [name for name in cls.model_fields if name != "others"]
        others = {name: mean([each.get(name) for each in scores]) for name in scores[0].others}
        return cls(
            **{name: mean([each.get(name) for each in scores]) for name in fields},
            others={name: value for name, value in others.items() if value is not None},
        )


class Interval(Part):
    """A 95% interval of FID, from bootstrap resamples of the samples."""

    low: float
    high: float
    resamples: int


class Floor(Part):
    """Scores of images that no model has generated, which say what a score means."""

    name: str
    """The images, in words."""
    kind: Literal["real", "reconstructed", "distorted"]
    images: int
    reference_images: int
    scores: Scores


class Nearest(Part):
    """Distances to the nearest training image, in the extractor's features."""

    samples: float
    """Median over samples."""
    training: float
    """Median over training images, each to the nearest other one."""
    closer: float
    """Fraction of the samples that are closer to a training image than ``training``."""
    count: int
    """Number of samples, and of training images, at most, that the medians are over."""


class Protocol(Part):
    """How samples were scored. Scores of different protocols never share a column."""

    extractor: str
    weights_hash: str
    resize: str
    samples: int
    reference: str
    """The real images, e.g. ``"digits/train"``."""
    reference_images: int
    features: int
    """Width of the features that FID compares."""
    neighbours: int | None = None
    """k of the k-NN manifolds of precision and recall."""
    kid_subsets: int | None = None
    kid_subset_size: int | None = None
    """Images of each of KID's subsets, on either side."""
    kid_scale: float | None = None
    """Factor of the squared MMD that is given as KID: 1; some publish 1000 times that."""
    inception_score_splits: int | None = None
    """Parts of the samples that Inception Score is averaged over; ``None`` also where there are no
    logits to compute it by."""
    library: str | None = None
    """Names and versions of what computes the scores: ``"torch-fidelity 0.4.0"``."""
    others: tuple[Quantity, ...] = ()
    """The quantities of further metrics."""

    def detailed(self, evaluation: EvaluationSettings, library: str | None) -> Protocol:
        """The same protocol with what settings and numbers of images make of each score."""
        fewer = min(self.samples, self.reference_images)
        return self.model_copy(
            update={
                "neighbours": evaluation.neighbours,
                "kid_subsets": evaluation.kid_subsets,
                "kid_subset_size": min(evaluation.kid_subset_size, fewer),
                "kid_scale": 1.0,
                "inception_score_splits": min(evaluation.inception_score_splits, self.samples),
                "library": library,
            }
        )

    def without_logits(self) -> Protocol:
        """The same protocol of a feature extractor that has no logits."""
        return self.model_copy(update={"inception_score_splits": None})
