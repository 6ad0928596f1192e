"""DINOv2, by timm: the class token of networks that were trained without labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from dstbench.cache import file_digest
from dstbench.contracts import Availability, FeatureExtractor, Features, PluginSettings, Workspace
from dstbench.errors import PluginError, ScoreError
from dstbench.plugins import require
from dstbench_features.vision import as_input, resize_in_words
from dstbench_features.weights import Published

if TYPE_CHECKING:
    from torch import Tensor

EXTRA = "dstbench[dinov2]"


def _published(size: str, revision: str, sha256: str, megabytes: int) -> Published:
    repository = f"https://huggingface.co/timm/vit_{size}_patch14_dinov2.lvd142m"
    url = f"{repository}/resolve/{revision}/model.safetensors"
    return Published("dinov2", url, sha256, megabytes)


PUBLISHED = {
    "small": _published(
        "small",
        "4610ca143709d58a633b6397a74412c2c3842454",
        "04d27f3400d059fc0cfd7d17dd1909a75bf3ea8fb3eeb48b97cb99e57ee20081",
        88,
    ),
    "base": _published(
        "base",
        "4685c99dabffe5affac90bd99dbffd25801ae58d",
        "55cbb5d887b336d430e649c277b85a1429e724871f9d02ac16203235886d8c7b",
        346,
    ),
    "large": _published(
        "large",
        "4741e1cafbf45415e77074bb0cb42dba76c8684a",
        "0424a5d1b515278cba3c6640ccbeaacc41de59d3a93df0dd5e494285eea2b355",
        1218,
    ),
}

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

SIZE = 224
PATCHES = SIZE // 14
"""Patches on each side of an image."""

OFFSET = 0.1
"""Part of a patch that the authors' code adds where it interpolates position embeddings."""


class DINOv2(FeatureExtractor["DINOv2.Settings"]):
    """torch-fidelity's ``dinov2-vit-l-14``, or a smaller one: its class token, and no logits.

    'DINOv2: Learning Robust Visual Features without Supervision' (Oquab et al., TMLR 2024), whose
    features rank generated images more as people do than Inception's ('Exposing flaws of
    generative model evaluation metrics', Stein et al., NeurIPS 2023, which resizes bicubically).
    torch-fidelity would download code and run it; this builds the network with timm: pip install
    'dstbench[dinov2]'. The weights are under the Apache 2.0 licence. Without logits there is no
    Inception Score. Grey images are repeated to three channels.
    """

    name = "dinov2"
    packages: ClassVar[Mapping[str, str]] = {"timm": EXTRA}
    library = "timm"

    class Settings(PluginSettings):
        size: Literal["small", "base", "large"] = Field(
            "large",
            description="ViT-S/14 with 384 features, ViT-B/14 with 768, or ViT-L/14 with 1,024, "
            "which is the one of Stein et al.",
        )
        weights: Path | None = Field(
            None,
            description="safetensors file with timm's names of weights, of that size; none: "
            "downloaded",
        )

    def __init__(self, settings: Settings, workspace: Workspace) -> None:
        super().__init__(settings, workspace)
        _timm()
        published = PUBLISHED[settings.size]
        path = published.path(settings.weights, workspace)
        self._weights_hash = file_digest(path)
        self._network = _network(settings.size, path, published).to(workspace.device)

    @classmethod
    def availability(cls, settings: Settings, workspace: Workspace) -> Availability:
        try:
            _timm()
        except PluginError as error:
            return Availability("missing", str(error))
        return PUBLISHED[settings.size].availability(settings.weights, workspace)

    @property
    def weights_hash(self) -> str:
        return self._weights_hash

    @property
    def resize(self) -> str:
        return resize_in_words(SIZE)

    def __call__(self, images: Tensor) -> Features:
        import torch

        with torch.no_grad():
            seen = as_input(images.to(self.workspace.device), SIZE, MEAN, STD)
            return Features(self._network(seen).cpu())


def _timm() -> Any:
    return require("timm", f"feature extractor '{DINOv2.name}'", EXTRA)


def _network(size: str, path: Path, published: Published) -> Any:
    """timm's network with the weights of a file."""
    import torch

    weights = published.tensors(path)
    with torch.device("meta"):  # no initialisation: it would be overwritten
        network = _timm().create_model(
            f"vit_{size}_patch14_dinov2", img_size=SIZE, num_classes=0, pretrained=False
        )
    weights.pop("mask_token", None)  # for training alone
    try:
        weights["pos_embed"] = interpolated(weights["pos_embed"])
        network.load_state_dict(weights, assign=True)
    except Exception as error:  # tensors of other shapes fail in other ways
        raise ScoreError(
            f'{path} does not hold timm\'s weights of DINOv2, size = "{size}"; {published.right}'
        ) from error
    return network.float().requires_grad_(False).eval()


def interpolated(embeddings: Tensor) -> Tensor:
    """Position embeddings (1, 1 + 16², D) for images of 224 pixels, of those (1, 1 + 37², D) that
    were trained: as the authors' code interpolates them, and timm does not."""
    import torch
    from torch.nn import functional as F

    token, grid = embeddings[:, :1], embeddings[:, 1:]
    side = math.isqrt(grid.shape[1])
    scale = (PATCHES + OFFSET) / side
    grid = grid.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    fewer = F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([token, fewer.flatten(2).transpose(1, 2)], dim=1)
