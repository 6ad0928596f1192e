"""The interval of a FID, against one worked out by hand."""

import numpy as np
import pytest
import torch

from dstbench.contracts import Features
from dstbench.metrics import fid_interval


def features(*rows: tuple[float, float]) -> Features:
    return Features(torch.tensor(rows))


FAKE = features((0, 0), (2, 0), (0, 2), (2, 2))
REAL = features((10, 10), (16, 10), (10, 16), (16, 16))


def by_hand(fake: np.ndarray, real: np.ndarray) -> float:
    """FID of two features: the trace of a 2×2 matrix's root is √(trace + 2 √determinant)."""
    a, b = np.cov(fake, rowvar=False), np.cov(real, rowvar=False)
    product = a @ b
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(max(np.linalg.det(product), 0)))
    means = fake.mean(axis=0) - real.mean(axis=0)
    return float(means @ means + np.trace(a) + np.trace(b) - 2 * root)


def test_it_is_the_spread_of_resampled_fids_around_the_fid() -> None:
    fake, real = FAKE.features.double().numpy(), REAL.features.double().numpy()
    rng = np.random.default_rng(0)
    resampled = [by_hand(fake[rng.integers(4, size=4)], real) for _ in range(20)]
    low, high = np.quantile(resampled, [0.025, 0.975])
    fid = by_hand(fake, real)
    assert fid == pytest.approx(288 + 32 / 3)
    found = fid_interval(FAKE, REAL, 20)
    assert found is not None
    assert found.low == pytest.approx(fid + low - np.mean(resampled), rel=1e-4)
    assert found.high == pytest.approx(fid + high - np.mean(resampled), rel=1e-4)
    assert found.resamples == 20


def test_it_is_the_same_each_time_and_absent_without_resamples() -> None:
    np.random.seed(1)
    first = fid_interval(FAKE, REAL, 5)
    np.random.seed(2)
    assert fid_interval(FAKE, REAL, 5) == first
    assert fid_interval(FAKE, REAL, 0) is None
