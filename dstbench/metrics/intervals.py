"""The interval of a FID, from bootstrap resamples of the generated samples."""

from __future__ import annotations

from dstbench.contracts import Features
from dstbench.records import Interval

LEVEL = 0.95


def fid_interval(fake: Features, real: Features, resamples: int) -> Interval | None:
    """The 95% interval of a FID; ``None`` without resamples.

    N of the N samples are drawn with replacement, so many times; the real images stay as they are.
    A resample has fewer distinct samples, which raises its FID: quantiles are shifted by the
    difference of the resamples' mean and the FID, and so tell its spread alone. What is drawn
    depends on N alone (seed 0).
    """
    import numpy as np
    from torch_fidelity import KEY_METRIC_FID
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    if resamples == 0:
        return None
    statistics = fid_features_to_statistics(real.features)

    def fid(rows: np.ndarray) -> float:
        ours = fid_features_to_statistics(fake.features[rows])
        return float(fid_statistics_to_metric(ours, statistics, verbose=False)[KEY_METRIC_FID])

    rng, count = np.random.default_rng(0), len(fake.features)
    found = np.array([fid(rng.integers(count, size=count)) for _ in range(resamples)])
    spread = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) - found.mean()
    low, high = fid(np.arange(count)) + spread
    return Interval(low=float(low), high=float(high), resamples=resamples)
