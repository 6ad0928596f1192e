"""How good samples are: features of images, scores of samples, and under which protocol."""

from dstbench.metrics.features import extract, real_features
from dstbench.metrics.protocol import caveats, protocol
from dstbench.metrics.scores import score

__all__ = ["caveats", "extract", "protocol", "real_features", "score"]
