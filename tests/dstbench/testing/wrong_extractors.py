"""Feature extractors that each break a promise: one that ``caught_by`` names."""

from typing import Any

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from wrong_plugins import Wrong

from dstbench.contracts import (
    READY,
    Availability,
    FeatureExtractor,
    Features,
    PluginSettings,
    Workspace,
)


class RightFeatures(FeatureExtractor):
    """Right: a random projection of an image's pooled pixels."""

    name = "pooled"
    weights_hash = "70" * 32
    resize = "average over 4×4 cells"

    class Settings(PluginSettings):
        features: int = Field(8, ge=2, description="of each image")

    def __call__(self, images: Tensor) -> Features:
        pooled = nn.functional.adaptive_avg_pool2d(images.float().mean(1, keepdim=True), 4)
        projected = pooled.flatten(1) @ self.projection() / 255
        features, logits = projected.split((self.settings.features, 4), dim=1)
        return Features(self.changed(features), self.changed(logits))

    def projection(self) -> Tensor:
        rng = torch.Generator().manual_seed(0)
        return torch.randn(16, self.settings.features + 4, generator=rng)

    def changed(self, values: Tensor) -> Any:
        return values


class Undocumented(Wrong, RightFeatures):
    """Has a setting without a description."""

    caught_by = "settings-are-documented"
    happens = "width: no description"

    class Settings(RightFeatures.Settings):
        width: int = 3


class Open(Wrong, RightFeatures):
    """Takes any setting."""

    caught_by = "settings-are-validated"
    happens = "was not refused"

    class Settings(RightFeatures.Settings, extra="allow"):
        pass


class Shrinking(Wrong, RightFeatures):
    """A setting shrinks each time that it is read."""

    caught_by = "settings-survive-a-record"
    happens = "features = 7 came back as 6"

    class Settings(RightFeatures.Settings):
        features: int = Field(8, ge=2, description="of each image")

        @field_validator("features")
        @classmethod
        def _less(cls, value: int) -> int:
            return value - 1


class Hasty(Wrong, RightFeatures):
    """Loads its weights to tell whether they are there."""

    caught_by = "availability-is-told"
    happens = "availability has made an instance"

    @classmethod
    def availability(cls, settings: Any, workspace: Workspace) -> Availability:
        cls(settings, workspace)
        return READY


class Unhelpful(Wrong, RightFeatures):
    """Does not say where to get its weights."""

    caught_by = "availability-is-told"
    happens = "it is 'download', but the detail"

    @classmethod
    def availability(cls, settings: Any, workspace: Workspace) -> Availability:
        return Availability("download")


class Infinite(Wrong, RightFeatures):
    """Features that are not finite."""

    caught_by = "features-are-matrices"
    happens = "features of 4 images (1, 32, 32) are not all finite"

    def changed(self, values: Tensor) -> Any:
        return values / 0


class Deep(Wrong, RightFeatures):
    """Features that are no matrix."""

    caught_by = "features-are-matrices"
    happens = "have shape (4, 8, 1, 1)"

    def changed(self, values: Tensor) -> Any:
        return values[:, :, None, None]


class Whole(Wrong, RightFeatures):
    """Features of integers."""

    caught_by = "features-are-matrices"
    happens = "are torch.int64 on cpu"

    def changed(self, values: Tensor) -> Any:
        return values.long()


class Graph(Wrong, RightFeatures):
    """Features that carry a graph."""

    caught_by = "features-are-matrices"
    happens = "require a gradient"

    def projection(self) -> Tensor:
        return super().projection().requires_grad_()


class Arrays(Wrong, RightFeatures):
    """Features of NumPy."""

    caught_by = "features-are-matrices"
    happens = "are a ndarray, no tensor"

    def changed(self, values: Tensor) -> Any:
        return values.numpy()


class Pair(Wrong, RightFeatures):
    """Returns a pair."""

    caught_by = "features-are-matrices"
    happens = "it made a tuple, no Features"

    def __call__(self, images: Tensor) -> Any:
        found = super().__call__(images)
        return found.features, found.logits


class Grey(Wrong, RightFeatures):
    """Takes grey images alone."""

    caught_by = "features-are-matrices"
    happens = "view size is not compatible"

    def __call__(self, images: Tensor) -> Features:
        return super().__call__(images[:, :2].view(-1, 1, *images.shape[2:])[: len(images)])


class Pixelwise(Wrong, RightFeatures):
    """As many features as an image has pixels."""

    caught_by = "features-are-matrices"
    happens = "D and K differ with the shape of images"

    def __call__(self, images: Tensor) -> Features:
        return Features(images.flatten(1).float(), images.flatten(1).float())


class Overwriting(Wrong, RightFeatures):
    """Changes the images that it is given."""

    caught_by = "features-are-matrices"
    happens = "images (1, 32, 32) were changed"

    def __call__(self, images: Tensor) -> Features:
        return super().__call__(images.bitwise_not_())


class Indifferent(Wrong, RightFeatures):
    """Sees no difference between images."""

    caught_by = "features-tell-images-apart"
    happens = "have the same features"

    def changed(self, values: Tensor) -> Any:
        return torch.ones_like(values)


class Normalising(Wrong, RightFeatures):
    """Normalises over the batch."""

    caught_by = "features-do-not-depend-on-batch-size"
    happens = "features of 6 images (1, 32, 32), extracted 1 at a time"

    def changed(self, values: Tensor) -> Any:
        return values - values.mean(dim=0)


class Dropping(Wrong, RightFeatures):
    """Forgets to switch dropout off."""

    caught_by = "extracting-is-deterministic"
    happens = "asked again, it makes other features of the same images"

    def changed(self, values: Tensor) -> Any:
        return nn.functional.dropout(values)


class Individual(Wrong, RightFeatures):
    """Each instance has weights of its own."""

    caught_by = "extracting-is-deterministic"
    happens = "another instance makes other features"

    def __init__(self, settings: PluginSettings, workspace: Workspace) -> None:
        super().__init__(settings, workspace)
        self.weights = torch.randn(16, 12)

    def projection(self) -> Tensor:
        return self.weights


class ShortHash(Wrong, RightFeatures):
    """Names its weights by a version."""

    caught_by = "weights-are-named"
    happens = "weights_hash is 'v1'"
    weights_hash = "v1"


class ManyHashes(Wrong, RightFeatures):
    """Names the weights of each instance anew."""

    caught_by = "weights-are-named"
    happens = "of another instance"

    @property
    def weights_hash(self) -> str:
        return f"{id(self):064x}"


class Wordless(Wrong, RightFeatures):
    """Does not say how images are resized."""

    caught_by = "weights-are-named"
    happens = "resize is ''"
    resize = ""
