"""FID, KID, Inception Score, precision and recall of a set of samples, by torch-fidelity."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dstbench.contracts import FeatureExtractor, Features
from dstbench.errors import ScoreError
from dstbench.metrics.features import extract, require_neighbours
from dstbench.records import Scores
from dstbench.settings import INCEPTION_SCORE_SPLITS, EvaluationSettings

if TYPE_CHECKING:
    from torch import Tensor

DISTANCES_AT_A_TIME = 1000
"""Rows of the distance matrices of precision and recall that are in memory together."""


def score(
    samples: Tensor, real: Features, extractor: FeatureExtractor, settings: EvaluationSettings
) -> Scores:
    """Scores of ``samples``, uint8 images (N, C, H, W), against the features of real images.

    - FID (Heusel et al., NeurIPS 2017)
    - KID (Bińkowski et al., ICLR 2018): mean and standard deviation over random subsets, each as
      large as the setting says or as the smaller side is
    - Inception Score (Salimans et al., NeurIPS 2016): mean and standard deviation over ten parts,
      over N where there are fewer samples
    - precision and recall (Kynkäänniemi et al., NeurIPS 2019): k-NN manifolds

    Raises :class:`~dstbench.errors.ScoreError` for samples that are no images or too few, and
    where a score comes out as no finite number.
    """
    import torch

    require_neighbours(len(samples), "samples", settings)
    require_neighbours(len(real.features), "real images", settings)
    fake = extract(torch.split(samples, settings.batch_size), extractor)
    if fake.features.shape[1] != real.features.shape[1]:
        raise ScoreError(
            f"the samples have {fake.features.shape[1]} features, the real images "
            f"{real.features.shape[1]}; both must come from the extractor {extractor.name!r}"
        )
    kid, kid_std = _kid(fake.features, real.features, settings)
    inception_score, inception_score_std = _inception_score(fake.logits)
    precision, recall = _precision_recall(fake.features, real.features, settings)
    return _finite(
        Scores(
            fid=_fid(fake.features, real.features),
            kid=kid,
            kid_std=kid_std,
            inception_score=inception_score,
            inception_score_std=inception_score_std,
            precision=precision,
            recall=recall,
        )
    )


def _fid(fake: Tensor, real: Tensor) -> float:
    from torch_fidelity import KEY_METRIC_FID
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    metric = fid_statistics_to_metric(
        fid_features_to_statistics(fake), fid_features_to_statistics(real), verbose=False
    )
    return float(metric[KEY_METRIC_FID])


def _kid(fake: Tensor, real: Tensor, settings: EvaluationSettings) -> tuple[float, float]:
    from torch_fidelity import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD
    from torch_fidelity.metric_kid import kid_features_to_metric

    metric = kid_features_to_metric(
        fake,
        real,
        kid_subsets=settings.kid_subsets,
        kid_subset_size=min(settings.kid_subset_size, len(fake), len(real)),
        verbose=False,
    )
    return metric[KEY_METRIC_KID_MEAN], metric[KEY_METRIC_KID_STD]


def _inception_score(logits: Tensor) -> tuple[float, float]:
    from torch_fidelity import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD
    from torch_fidelity.metric_isc import isc_features_to_metric

    metric = isc_features_to_metric(logits, splits=min(INCEPTION_SCORE_SPLITS, len(logits)))
    return metric[KEY_METRIC_ISC_MEAN], metric[KEY_METRIC_ISC_STD]


def _precision_recall(
    fake: Tensor, real: Tensor, settings: EvaluationSettings
) -> tuple[float, float]:
    from torch_fidelity import KEY_METRIC_PRECISION, KEY_METRIC_RECALL
    from torch_fidelity.metric_prc import prc_features_to_metric

    metric = prc_features_to_metric(
        fake,
        real,
        prc_neighborhood=settings.neighbours,
        prc_batch_size=DISTANCES_AT_A_TIME,
        save_cpu_ram=True,
        verbose=False,
    )
    return metric[KEY_METRIC_PRECISION], metric[KEY_METRIC_RECALL]


def _finite(scores: Scores) -> Scores:
    """The scores, unless one of them is no finite number."""
    wrong = [name for name, value in scores if not math.isfinite(value)]
    if wrong:
        raise ScoreError(
            f"{', '.join(wrong)}: not a finite number for these samples; "
            "look at the samples, and at the range of the extractor's features and logits"
        )
    return scores
