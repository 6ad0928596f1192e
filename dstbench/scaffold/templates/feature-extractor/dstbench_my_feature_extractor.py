"""my-feature-extractor, a feature extractor for dstbench."""

import hashlib

import torch
from dstbench import hookimpl
from dstbench.contracts import FeatureExtractor, Features, PluginSettings, Workspace
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

SIZE = 32
CLASSES = 10


class MyFeatureExtractor(FeatureExtractor["MyFeatureExtractor.Settings"]):
    """Random projections of the pixels: a stand-in for a trained network.

    CHANGE THIS: say what yours was trained on and where it comes from. `dstbench plugins` prints
    the first line.
    """

    name = "my-feature-extractor"

    class Settings(PluginSettings):
        # CHANGE THIS: what a benchmark may set under [extractors.my-feature-extractor].
        features: int = Field(64, ge=2, description="numbers that an image is reduced to")

    def __init__(self, settings: Settings, workspace: Workspace) -> None:
        # CHANGE THIS: load your weights here, safetensors rather than a pickle. Where they have to
        # be downloaded, or come from a person's disk, say so in availability().
        super().__init__(settings, workspace)
        rng = torch.Generator().manual_seed(0)
        width = settings.features + CLASSES
        self._weights = torch.randn(SIZE * SIZE, width, generator=rng) / SIZE

    @property
    def weights_hash(self) -> str:
        return hashlib.sha256(self._weights.numpy().tobytes()).hexdigest()

    @property
    def resize(self) -> str:
        return f"grey, antialiased bilinear to {SIZE}×{SIZE}"

    def __call__(self, images: Tensor) -> Features:
        # CHANGE THIS: what your network sees. Each image for itself: neither the batch nor the
        # order of the images must matter.
        grey = images.to(self.workspace.device).float().mean(dim=1, keepdim=True) / 255
        small = F.interpolate(grey, size=(SIZE, SIZE), mode="bilinear", antialias=True)
        seen = small.flatten(1) @ self._weights.to(self.workspace.device)
        features, logits = torch.split(seen.cpu(), [self.settings.features, CLASSES], dim=1)
        return Features(features, logits)


@hookimpl
def dstbench_feature_extractors() -> list[type[FeatureExtractor]]:
    return [MyFeatureExtractor]
