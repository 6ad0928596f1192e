"""Feature extractors that ship with dstbench, and metrics that compare what they extract."""

from dstbench import hookimpl
from dstbench.contracts import FeatureExtractor, Metric


@hookimpl
def dstbench_feature_extractors() -> list[type[FeatureExtractor]]:
    from dstbench_features.clip import CLIP
    from dstbench_features.dinov2 import DINOv2
    from dstbench_features.efficientnet import EfficientNetLite0
    from dstbench_features.inception import Inception
    from dstbench_features.lenet_digits import LeNetDigits

    return [CLIP, DINOv2, EfficientNetLite0, Inception, LeNetDigits]


@hookimpl
def dstbench_metrics() -> list[type[Metric]]:
    from dstbench_features.fidelity import FID, KID, InceptionScore, PrecisionRecall
    from dstbench_features.manifolds import DensityCoverage

    return [FID, KID, InceptionScore, PrecisionRecall, DensityCoverage]
