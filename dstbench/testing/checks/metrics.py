"""What is promised of a metric."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dstbench.contracts import Features, Metric
from dstbench.records import Quantity
from dstbench.settings import EvaluationSettings
from dstbench.testing.checking import Broken, Subject, seeded
from dstbench.testing.checks import settings

SIZES = ((24, 40), (40, 24), (8, 8))
"""Numbers of samples and of real images that a metric is tried with."""
WIDTH, CLASSES = 6, 4


@dataclass
class MetricSubject(Subject):
    """A metric, made anew for each check."""

    cls: type[Metric]

    def make(self) -> Metric:
        evaluation = EvaluationSettings(extractor="synthetic", kid_subsets=5)
        return self.cls(self.settings, evaluation)


def quantities_are_named(subject: MetricSubject) -> None:
    """The class lists its quantities, each with a name of its own, and its library is a
    distribution that is installed, or empty."""
    from importlib import metadata

    names = [getattr(each, "name", None) for each in subject.cls.quantities]
    if not all(isinstance(each, Quantity) for each in subject.cls.quantities):
        raise Broken(f"quantities are {subject.cls.quantities!r}; they should be of Quantity")
    if len(set(names)) < len(names):
        raise Broken(f"quantities are called {', '.join(map(str, names))}")
    try:
        metadata.version(subject.cls.library) if subject.cls.library else None
    except metadata.PackageNotFoundError:
        raise Broken(f"its library {subject.cls.library!r} is not installed") from None


def scores_are_finite(subject: MetricSubject) -> None:
    """Each of its quantities is a finite number, of more samples than real images, and of fewer,
    which are left as they were."""
    for size in SIZES:
        samples, real = _features(size[0], seed=1), _features(size[1], seed=2)
        before = samples.features.clone(), real.features.clone()
        found = _scores(subject.make(), samples, real)
        for quantity in subject.cls.quantities:
            if quantity.name not in found:
                raise Broken(f"{quantity.name} is not among {', '.join(found)}")
        for name, value in found.items():
            if not (isinstance(value, float) and math.isfinite(value)):
                raise Broken(f"{name} of {size[0]} samples and {size[1]} images is {value!r}")
        if not all(map(torch.equal, before, (samples.features, real.features))):
            raise Broken("features were changed")


def scoring_is_deterministic(subject: MetricSubject) -> None:
    """The same features have the same scores each time, whatever the global generators."""
    samples, real = _features(24, seed=1), _features(40, seed=2)
    first = _scores(subject.make(), samples, real)
    with seeded(1):
        if (second := _scores(subject.make(), samples, real)) != first:
            raise Broken(f"asked again, it makes {second} of the same features; it was {first}")


def order_does_not_matter(subject: MetricSubject) -> None:
    """The order of samples and of real images changes no score but by rounding, or by no more than
    the spread that it tells."""
    samples, real = _features(24, seed=1), _features(40, seed=2)
    first = _scores(subject.make(), samples, real)
    second = _scores(subject.make(), _reversed(samples), _reversed(real))
    for quantity in subject.cls.quantities:
        one, other = first[quantity.name], second[quantity.name]
        allowed = 1e-3 * max(1, abs(one)) + first.get(f"{quantity.name}_std", 0)
        if abs(one - other) > allowed:
            raise Broken(f"{quantity.name} is {one}, and {other} in the reverse order")


def better_is_better(subject: MetricSubject) -> None:
    """Samples that are like real images score no worse than such that are all far from them and
    alike, by what each quantity says is better."""
    real, like = _features(40, seed=2), _features(40, seed=1)
    far = Features(20 + 0.1 * like.features, torch.zeros(40, CLASSES))
    good, bad = _scores(subject.make(), like, real), _scores(subject.make(), far, real)
    for quantity in subject.cls.quantities:
        difference = good[quantity.name] - bad[quantity.name]
        if (difference > 0) if quantity.better == "lower" else (difference < 0):
            raise Broken(
                f"{quantity.name} ({quantity.better} is better) is {good[quantity.name]:g} of "
                f"samples like real images, and {bad[quantity.name]:g} of others"
            )


CHECKS = (
    *settings.CHECKS,
    quantities_are_named,
    scores_are_finite,
    scoring_is_deterministic,
    order_does_not_matter,
    better_is_better,
)


def _features(count: int, seed: int) -> Features:
    rng = torch.Generator().manual_seed(seed)
    features = torch.randn(count, WIDTH, generator=rng)
    return Features(features, 3 * torch.randn(count, CLASSES, generator=rng))


def _reversed(features: Features) -> Features:
    logits: Tensor | None = features.logits
    return Features(features.features.flip(0), None if logits is None else logits.flip(0))


def _scores(metric: Metric, samples: Features, real: Features) -> Mapping[str, float]:
    return {name: float(value) for name, value in metric(samples, real).items()}
