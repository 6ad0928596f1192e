"""Under which protocol samples were scored, and what to bear in mind when reading the scores."""

from __future__ import annotations

from dstbench.contracts import FeatureExtractor, Features
from dstbench.records import Protocol
from dstbench.settings import EvaluationSettings


def protocol(
    dataset: str, extractor: FeatureExtractor, settings: EvaluationSettings, real: Features
) -> Protocol:
    """How the samples of a cell are scored against ``real``, the reference split's features."""
    reference_images, width = real.features.shape
    return Protocol(
        extractor=extractor.name,
        weights_hash=extractor.weights_hash,
        resize=extractor.resize,
        samples=settings.samples,
        reference=f"{dataset}/{settings.reference}",
        reference_images=reference_images,
        features=width,
    )


def caveats(protocol: Protocol) -> list[str]:
    """What the reader of scores under this protocol must know, one sentence each.

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
