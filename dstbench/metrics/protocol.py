"""The protocol under which samples are scored, and its caveats."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import metadata

from dstbench.contracts import FeatureExtractor, Features, Metric
from dstbench.records import Protocol, Scores
from dstbench.settings import EvaluationSettings


def protocol(
    dataset: str,
    extractor: FeatureExtractor,
    settings: EvaluationSettings,
    real: Features,
    metrics: Sequence[Metric],
) -> Protocol:
    """The protocol of a cell's scores by ``metrics`` against ``real``, the features of the
    reference split."""
    reference_images, width = real.features.shape
    names = dict.fromkeys([*(metric.library for metric in metrics), extractor.library])
    library = ", ".join(with_version(name) for name in names if name)
    quantities = [quantity for metric in metrics for quantity in metric.quantities]
    counted = Protocol(
        extractor=extractor.name,
        weights_hash=extractor.weights_hash,
        resize=extractor.resize,
        samples=settings.samples,
        reference=f"{dataset}/{settings.reference}",
        reference_images=reference_images,
        features=width,
        others=tuple(each for each in quantities if each.name not in Scores.model_fields),
    )
    told = counted.detailed(settings, library or None)
    return told if real.logits is not None else told.without_logits()


@cache
def with_version(distribution: str) -> str:
    """Name and version of an installed distribution: ``"timm 1.0.31"``."""
    return f"{distribution} {metadata.version(distribution)}"


def in_words(protocol: Protocol) -> str:
    """How each score is computed, in one sentence; what an old record does not tell is left out."""
    parts = []
    if protocol.kid_subsets is not None:
        scale = "" if protocol.kid_scale == 1 else f" × {protocol.kid_scale:g}"
        parts += [
            f"KID: squared MMD{scale} with the kernel (x·y / {protocol.features} + 1)³, without a "
            f"unit, over {protocol.kid_subsets:,} random subsets of {protocol.kid_subset_size:,} "
            "images",
            f"IS: {_inception_score(protocol)}",
            f"precision, recall: k = {protocol.neighbours}",
        ]
    if protocol.library:
        parts.append(f"computed by {protocol.library}")
    return f"{'; '.join(parts)}." if parts else ""


def _inception_score(protocol: Protocol) -> str:
    if protocol.inception_score_splits is None:
        return f"none, because {protocol.extractor} has no logits"
    return f"over {protocol.inception_score_splits} parts of the samples"


def caveats(protocol: Protocol) -> list[str]:
    """Caveats for readers of scores under this protocol, one sentence each.

    The covariance of N images has a rank of at most N − 1. Unless N exceeds the number of
    features it is singular, and FID, whose bias shrinks with N (Bińkowski et al., 'Demystifying
    MMD GANs', ICLR 2018), says more about N than about the samples.
    """
    sides = [(protocol.samples, "samples"), (protocol.reference_images, "reference images")]
    return [
        f"FID compares {protocol.features} features of only {count} {what}: with no more images "
        "than features it is strongly biased; KID is not."
        for count, what in sides
        if count <= protocol.features
    ]
