"""Metrics that each break a promise: one that ``caught_by`` names."""

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field, field_validator
from wrong_plugins import Wrong

from dstbench.contracts import Features, Metric, PluginSettings
from dstbench.records import Quantity


class RightMetric(Metric):
    """Right: the distance of means, scaled."""

    name = "distance"
    quantities = (Quantity(name="distance", title="distance", better="lower"),)

    class Settings(PluginSettings):
        scale: int = Field(8, ge=2, description="factor of the distance")

    def __call__(self, samples: Features, real: Features) -> Mapping[str, float]:
        return {"distance": self.settings.scale * self.distance(samples.features, real.features)}

    def distance(self, samples: Any, real: Any) -> float:
        return float((samples.mean(dim=0) - real.mean(dim=0)).norm())


class UndocumentedMetric(Wrong, RightMetric):
    """Has a setting without a description."""

    caught_by = "settings-are-documented"
    happens = "width: no description"

    class Settings(RightMetric.Settings):
        width: int = 3


class OpenMetric(Wrong, RightMetric):
    """Takes any setting."""

    caught_by = "settings-are-validated"
    happens = "was not refused"

    class Settings(RightMetric.Settings, extra="allow"):
        pass


class ShrinkingMetric(Wrong, RightMetric):
    """A setting shrinks each time that it is read."""

    caught_by = "settings-survive-a-record"
    happens = "scale = 7 came back as 6"

    class Settings(RightMetric.Settings):
        scale: int = Field(8, ge=2, description="factor of the distance")

        @field_validator("scale")
        @classmethod
        def _less(cls, value: int) -> int:
            return value - 1


class Twice(Wrong, RightMetric):
    """Calls two quantities the same."""

    caught_by = "quantities-are-named"
    happens = "quantities are called distance, distance"
    quantities = RightMetric.quantities * 2


class Borrowed(Wrong, RightMetric):
    """Is computed by a library that is not there."""

    caught_by = "quantities-are-named"
    happens = "its library 'yardsticks' is not installed"
    library = "yardsticks"


class Silent(Wrong, RightMetric):
    """Does not give all that it lists."""

    caught_by = "scores-are-finite"
    happens = "angle is not among distance"
    quantities = (
        *RightMetric.quantities,
        Quantity(name="angle", title="angle", better="lower"),
    )


class Boundless(Wrong, RightMetric):
    """Divides by zero where there are as many samples as real images."""

    caught_by = "scores-are-finite"
    happens = "distance of 8 samples and 8 images is inf"

    def distance(self, samples: Any, real: Any) -> float:
        value = super().distance(samples, real)
        return value if len(samples) != len(real) else float("inf")


class Centring(Wrong, RightMetric):
    """Changes the features that it is given."""

    caught_by = "scores-are-finite"
    happens = "features were changed"

    def distance(self, samples: Any, real: Any) -> float:
        samples -= real.mean(dim=0)
        return float(samples.mean(dim=0).norm())


class Rolling(Wrong, RightMetric):
    """Looks at some samples at random."""

    caught_by = "scoring-is-deterministic"
    happens = "asked again, it makes"

    def distance(self, samples: Any, real: Any) -> float:
        return super().distance(samples[torch.randperm(len(samples))[:5]], real)


class Hasty(Wrong, RightMetric):
    """Looks at the first samples alone."""

    caught_by = "order-does-not-matter"
    happens = "in the reverse order"

    def distance(self, samples: Any, real: Any) -> float:
        return super().distance(samples[:5], real)


class Backwards(Wrong, RightMetric):
    """Says that far is better."""

    caught_by = "better-is-better"
    happens = "distance (higher is better)"
    quantities = (Quantity(name="distance", title="distance", better="higher"),)
