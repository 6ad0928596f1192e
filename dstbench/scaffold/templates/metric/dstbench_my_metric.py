"""my-metric, a metric for dstbench."""

from collections.abc import Mapping

import torch
from dstbench import hookimpl
from dstbench.contracts import Features, Metric
from dstbench.records import Quantity


class MyMetric(Metric):
    """The energy distance between samples and real images, in the features.

    'Testing for equal distributions in high dimension' (Székely & Rizzo, InterStat, 2004).

    CHANGE THIS: say what yours measures, and whose it is. `dstbench plugins` prints the first line.
    """

    name = "my-metric"

    # CHANGE THIS: the numbers that it gives, each a column of the leaderboard. Where it is of class
    # logits, say needs_logits = True; where a package computes it, its name: library = "…".
    quantities = (Quantity(name="my_metric", title="my-metric", better="lower"),)

    def __call__(self, samples: Features, real: Features) -> Mapping[str, float]:
        # CHANGE THIS: the score of features (N, D) of samples and (M, D) of real images. The same
        # features always have the same one, in whatever order they come; self.evaluation has what
        # a benchmark says under [evaluation].
        fake, true = samples.features.double(), real.features.double()
        between = torch.cdist(fake, true).mean()
        within = torch.cdist(fake, fake).mean() + torch.cdist(true, true).mean()
        return {"my_metric": float(2 * between - within)}


@hookimpl
def dstbench_metrics() -> list[type[Metric]]:
    return [MyMetric]
