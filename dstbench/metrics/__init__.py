"""Quality of samples: features of images, scores computed from them, and the scores' protocol."""

from dstbench.metrics.features import extract, real_features
from dstbench.metrics.floors import Floors
from dstbench.metrics.intervals import fid_interval
from dstbench.metrics.nearest import nearest
from dstbench.metrics.protocol import caveats, in_words, protocol
from dstbench.metrics.scores import sample_features, score

__all__ = [
    "Floors",
    "caveats",
    "extract",
    "fid_interval",
    "in_words",
    "nearest",
    "protocol",
    "real_features",
    "sample_features",
    "score",
]
