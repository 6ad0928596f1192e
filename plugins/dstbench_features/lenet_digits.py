"""A small digit classifier whose weights ship with the package: it needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dstbench.cache import file_digest
from dstbench.contracts import FeatureExtractor, Features, PluginSettings, Workspace

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = Path(__file__).with_name("lenet_digits.safetensors")


class LeNetDigits(FeatureExtractor):
    """64 features and 10 logits of a convolutional network trained on 5,000 of MNIST's digits.

    For digits and drawings, light strokes on black. The datasets ``digits`` and ``digits-strokes``
    hold none of the digits that it has seen; ``vmnist`` may hold some. How it was trained, and its
    accuracy on scikit-learn's digits, stand in ``lenet_digits.json`` beside its weights; ``python
    -m dstbench_features.train_lenet_digits`` makes both.
    """

    name = "lenet-digits"

    def __init__(self, settings: PluginSettings, workspace: Workspace) -> None:
        from dstbench_features.lenet import load

        super().__init__(settings, workspace)
        self._network = load(WEIGHTS).to(workspace.device)

    @property
    def weights_hash(self) -> str:
        return file_digest(WEIGHTS)

    @property
    def resize(self) -> str:
        return "grey, antialiased bilinear to 32×32"

    def __call__(self, images: Tensor) -> Features:
        import torch

        with torch.no_grad():
            features, logits = self._network(images.to(self.workspace.device))
        return Features(features.cpu(), logits.cpu())
