"""Density and coverage, as the package of their authors computes them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import Any, ClassVar

from dstbench.contracts import Features, Metric, PluginSettings
from dstbench.plugins import require
from dstbench.records import Quantity


class DensityCoverage(Metric):
    """Density and coverage by manifolds of k nearest neighbours (Naeem et al., ICML 2020).

    Unlike precision, density is not raised by a single real image far from the others; coverage is
    the fraction of real images that have a sample nearby. Needs pip install 'dstbench[prdc]', and
    memory for all distances at once: 8 bytes for each pair of real images, and of a sample and a
    real image.
    """

    name = "density-coverage"
    packages: ClassVar[Mapping[str, str]] = {"prdc": "dstbench[prdc]"}
    quantities = (
        Quantity(name="density", title="density", better="higher"),
        Quantity(name="coverage", title="coverage", better="higher"),
    )
    library = "prdc"

    def __init__(self, settings: PluginSettings, evaluation: Any) -> None:
        super().__init__(settings, evaluation)
        self._prdc = require("prdc", f"metric '{self.name}'", "dstbench[prdc]")

    def __call__(self, samples: Features, real: Features) -> Mapping[str, float]:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints numbers of images
            found = self._prdc.compute_prdc(
                real_features=real.features.numpy(),
                fake_features=samples.features.numpy(),
                nearest_k=self.evaluation.neighbours,
            )
        return {name: float(found[name]) for name in ("density", "coverage")}
