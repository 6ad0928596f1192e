"""Scores of a set of samples, by metrics that are plugged in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dstbench.contracts import FeatureExtractor, Features, Metric
from dstbench.errors import ScoreError
from dstbench.metrics.features import extract, require_neighbours
from dstbench.records import Scores
from dstbench.settings import EvaluationSettings

if TYPE_CHECKING:
    from torch import Tensor


def sample_features(
    samples: Tensor, extractor: FeatureExtractor, settings: EvaluationSettings
) -> Features:
    """The features of samples, uint8 images (N, C, H, W).

    Raises :class:`~dstbench.errors.ScoreError` for samples that are no images or too few.
    """
    import torch

    require_neighbours(len(samples), "samples", settings)
    return extract(torch.split(samples, settings.batch_size), extractor)


def score(
    fake: Features, real: Features, settings: EvaluationSettings, metrics: Sequence[Metric]
) -> Scores:
    """Scores of samples against real images, both by their features.

    What needs logits is left out where there are none. Raises
    :class:`~dstbench.errors.ScoreError` for too few images, features of different extractors, and
    where a score comes out as no finite number.
    """
    require_neighbours(len(fake.features), "samples", settings)
    require_neighbours(len(real.features), "real images", settings)
    if fake.features.shape[1] != real.features.shape[1]:
        raise ScoreError(
            f"the samples have {fake.features.shape[1]} features, the real images "
            f"{real.features.shape[1]}; both must come from the same extractor"
        )
    values: dict[str, float] = {}
    for metric in metrics:
        if metric.needs_logits and (fake.logits is None or real.logits is None):
            continue
        found = {name: float(value) for name, value in metric(fake, real).items()}
        names = {quantity.name for quantity in metric.quantities}
        if missing := names - found.keys():
            raise ScoreError(f"metric '{metric.name}' gives no {', '.join(sorted(missing))}")
        if repeated := values.keys() & found.keys():
            raise ScoreError(f"two metrics give {', '.join(sorted(repeated))}: one is enough")
        values |= found
    if wrong := [name for name, value in values.items() if not math.isfinite(value)]:
        raise ScoreError(
            f"{', '.join(wrong)}: not a finite number for these samples; "
            "look at the samples, and at the range of the extractor's features and logits"
        )
    own = {name: value for name, value in values.items() if name in Scores.model_fields}
    return Scores(**own, others={name: v for name, v in values.items() if name not in own})
