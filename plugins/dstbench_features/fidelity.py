"""FID, KID, Inception Score, precision and recall, as torch-fidelity computes them."""

from __future__ import annotations

from collections.abc import Mapping

from dstbench.contracts import Features, Metric
from dstbench.records import Quantity

DISTANCES_AT_A_TIME = 1000
"""Rows of the distance matrices of precision and recall that are in memory together."""

LIBRARY = "torch-fidelity"


class FID(Metric):
    """Fréchet Inception distance (Heusel et al., NeurIPS 2017)."""

    name = "fid"
    quantities = (Quantity(name="fid", title="FID", better="lower", decimals=2),)
    library = LIBRARY

    def __call__(self, samples: Features, real: Features) -> Mapping[str, float]:
        from torch_fidelity import KEY_METRIC_FID
        from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

        metric = fid_statistics_to_metric(
            fid_features_to_statistics(samples.features),
            fid_features_to_statistics(real.features),
            verbose=False,
        )
        return {"fid": float(metric[KEY_METRIC_FID])}


class KID(Metric):
    """Kernel Inception distance (Bińkowski et al., ICLR 2018), the squared MMD.

    Mean and standard deviation over random subsets, each as large as the setting says or as the
    smaller side is.
    """

    name = "kid"
    quantities = (Quantity(name="kid", title="KID", better="lower", decimals=4),)
    library = LIBRARY

    def __call__(self, samples: Features, real: Features) -> Mapping[str, float]:
        from torch_fidelity import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD
        from torch_fidelity.metric_kid import kid_features_to_metric

        fewer = min(len(samples.features), len(real.features))
        metric = kid_features_to_metric(
            samples.features,
            real.features,
            kid_subsets=self.evaluation.kid_subsets,
            kid_subset_size=min(self.evaluation.kid_subset_size, fewer),
            verbose=False,
        )
        return {"kid": metric[KEY_METRIC_KID_MEAN], "kid_std": metric[KEY_METRIC_KID_STD]}


class InceptionScore(Metric):
    """Inception Score (Salimans et al., NeurIPS 2016).

    Mean and standard deviation over ten parts of the samples, over N where there are fewer.
    """

    name = "inception-score"
    quantities = (Quantity(name="inception_score", title="IS", better="higher", decimals=2),)
    needs_logits = True
    library = LIBRARY

    def __call__(self, samples: Features, real: Features) -> Mapping[str, float]:
        from torch_fidelity import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD
        from torch_fidelity.metric_isc import isc_features_to_metric

        parts = min(self.evaluation.inception_score_splits, len(samples.features))
        metric = isc_features_to_metric(samples.logits, splits=parts)
        return {
            "inception_score": metric[KEY_METRIC_ISC_MEAN],
            "inception_score_std": metric[KEY_METRIC_ISC_STD],
        }


class PrecisionRecall(Metric):
    """Precision and recall by manifolds of k nearest neighbours (Kynkäänniemi et al., NeurIPS
    2019)."""

    name = "precision-recall"
    quantities = (
        Quantity(name="precision", title="precision", better="higher"),
        Quantity(name="recall", title="recall", better="higher"),
    )
    library = LIBRARY

    def __call__(self, samples: Features, real: Features) -> Mapping[str, float]:
        from torch_fidelity import KEY_METRIC_PRECISION, KEY_METRIC_RECALL
        from torch_fidelity.metric_prc import prc_features_to_metric

        metric = prc_features_to_metric(
            samples.features,
            real.features,
            prc_neighborhood=self.evaluation.neighbours,
            prc_batch_size=DISTANCES_AT_A_TIME,
            save_cpu_ram=True,
            verbose=False,
        )
        return {"precision": metric[KEY_METRIC_PRECISION], "recall": metric[KEY_METRIC_RECALL]}
