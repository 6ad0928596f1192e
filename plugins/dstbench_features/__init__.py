"""Feature extractors that ship with dstbench: ``inception`` and ``lenet-digits``."""

from dstbench import hookimpl
from dstbench.contracts import FeatureExtractor


@hookimpl
def dstbench_feature_extractors() -> list[type[FeatureExtractor]]:
    from dstbench_features.inception import Inception
    from dstbench_features.lenet_digits import LeNetDigits

    return [Inception, LeNetDigits]
