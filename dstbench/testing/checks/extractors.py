"""What is promised of a feature extractor."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from dstbench.contracts import FeatureExtractor, Features, Workspace
from dstbench.testing.availability import check_availability, ready_workspace
from dstbench.testing.checking import Broken, Subject, seeded
from dstbench.testing.checks import settings

SHAPES = ((1, 32, 32), (3, 32, 32), (1, 8, 12), (3, 64, 48))
"""Shapes (C, H, W) of the images that a feature extractor is tried with: grey and RGB, small and
large, not all square."""


@dataclass
class FeatureExtractorSubject(Subject):
    """A feature extractor, made once for all checks."""

    cls: type[FeatureExtractor]

    @cached_property
    def extractor(self) -> FeatureExtractor:
        return self.make()

    def make(self) -> FeatureExtractor:
        return self.cls(self.settings, self.workspace)

    @cached_property
    def workspace(self) -> Workspace:
        """A workspace with a cache of its own, or with the user's where the weights are only there;
        skips the check where they are not."""
        return ready_workspace(partial(self.cls.availability, self.settings), "weights are")


def availability_is_told(subject: FeatureExtractorSubject) -> None:
    """availability says within seconds, and without loading anything, whether the weights are
    there, and what to do where they are not."""
    cls = subject.cls
    cannot_load: Any = type(
        cls.__name__, (cls,), {"__init__": _refuse, "__module__": cls.__module__}
    )
    check_availability(partial(cannot_load.availability, subject.settings))


def features_are_matrices(subject: FeatureExtractorSubject) -> None:
    """Features (N, D), and logits (N, K) if there are any, D and K at least 2, are finite floats on
    the CPU, of grey and RGB images of any size, and carry no graph of gradients."""
    sizes = set()
    for shape in SHAPES:
        images = pictures(4, shape)
        before = images.clone()
        found = subject.extractor(images)
        if not isinstance(found, Features):
            raise Broken(f"of images {shape} it made a {type(found).__name__}, no Features")
        for name, values in _parts(found):
            if problem := _problem(values, len(images)):
                raise Broken(f"{name} of 4 images {shape} {problem}")
        sizes.add(tuple(values.shape[1] for _, values in _parts(found)))
        if not torch.equal(images, before):
            raise Broken(f"images {shape} were changed")
    if len(sizes) > 1:
        raise Broken(f"D and K differ with the shape of images: {sorted(sizes)}")


def features_tell_images_apart(subject: FeatureExtractorSubject) -> None:
    """Different images have different features."""
    for shape in SHAPES[:2]:
        features = subject.extractor(pictures(4, shape)).features
        if torch.equal(features[0], features[1]):
            raise Broken(f"two images {shape} of random shades have the same features")


def features_do_not_depend_on_batch_size(subject: FeatureExtractorSubject) -> None:
    """An image has the same features, but for the rounding of sums, alone and among others."""
    for shape in SHAPES[:2]:
        images = pictures(6, shape)
        together = subject.extractor(images)
        for size in (1, 4):
            parts = [subject.extractor(part) for part in torch.split(images, size)]
            for name, whole in _parts(together):
                apart = torch.cat([getattr(part, name) for part in parts])
                difference = float((whole - apart).abs().max())
                if not difference <= 1e-3 * float(whole.abs().max()) + 1e-6:
                    raise Broken(
                        f"{name} of 6 images {shape}, extracted {size} at a time, differ by up to "
                        f"{difference:.3g} from those extracted at once"
                    )


def extracting_is_deterministic(subject: FeatureExtractorSubject) -> None:
    """The same images have the same features each time, from every instance, whatever the global
    generators."""
    images = pictures(4, SHAPES[0])
    first = subject.extractor(images)
    with seeded(1):
        other = subject.make()
        for who, second in (("it", subject.extractor(images)), ("another instance", other(images))):
            for name, values in _parts(first):
                if not torch.equal(values, getattr(second, name)):
                    raise Broken(f"asked again, {who} makes other {name} of the same images")


def weights_are_named(subject: FeatureExtractorSubject) -> None:
    """The weights_hash is a SHA-256 in 64 hexadecimal digits, the same for every instance, and
    resize says in words what happens to an image before the network sees it."""
    told = subject.extractor.weights_hash
    if not (isinstance(told, str) and re.fullmatch("[0-9a-f]{64}", told)):
        raise Broken(f"weights_hash is {told!r}")
    if (again := subject.make().weights_hash) != told:
        raise Broken(f"weights_hash is {told}, and {again} of another instance")
    words = subject.extractor.resize
    if not (isinstance(words, str) and words.strip()):
        raise Broken(f"resize is {words!r}")


CHECKS = (
    *settings.CHECKS,
    availability_is_told,
    features_are_matrices,
    features_tell_images_apart,
    features_do_not_depend_on_batch_size,
    extracting_is_deterministic,
    weights_are_named,
)


def pictures(count: int, shape: tuple[int, int, int]) -> Tensor:
    """uint8 images (count, *shape) of random shades."""
    rng = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, *shape), generator=rng).to(torch.uint8)


def _parts(found: Features) -> list[tuple[str, Tensor]]:
    """Features, and logits where there are any, by name."""
    named = (("features", found.features), ("logits", found.logits))
    return [(name, values) for name, values in named if values is not None]


def _problem(values: Any, count: int) -> str | None:
    if not isinstance(values, Tensor):
        return f"are a {type(values).__name__}, no tensor"
    if values.ndim != 2 or len(values) != count or values.shape[1] < 2:
        return f"have shape {tuple(values.shape)}"
    if not values.is_floating_point() or values.device.type != "cpu":
        return f"are {values.dtype} on {values.device}"
    if values.requires_grad:
        return "require a gradient: compute them under torch.no_grad()"
    return None if values.isfinite().all() else "are not all finite"


def _refuse(extractor: FeatureExtractor, *_: Any) -> None:
    raise Broken("availability has made an instance")
