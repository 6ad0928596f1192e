"""Quality of samples: features of images, scores computed from them, and the scores' protocol."""

from dstbench.metrics.features import extract, real_features
from dstbench.metrics.protocol import caveats, in_words, protocol
from dstbench.metrics.scores import score

__all__ = ["caveats", "extract", "in_words", "protocol", "real_features", "score"]
