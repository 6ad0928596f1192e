"""Inception-v3 as torch-fidelity has it, the feature extractor of published FIDs."""

from __future__ import annotations

import io
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from pydantic import Field

from dstbench.cache import file_digest
from dstbench.contracts import Availability, FeatureExtractor, Features, PluginSettings, Workspace
from dstbench.errors import ScoreError
from dstbench_features.vision import at_once, resize_in_words
from dstbench_features.weights import Published

if TYPE_CHECKING:
    from torch import Tensor

PUBLISHED = Published(
    "inception",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    91,
)


class Inception(FeatureExtractor["Inception.Settings"]):
    """torch-fidelity's ``inception-v3-compat``: 2048 features and 1008 unbiased logits.

    The network and weights of the original FID (Heusel et al., NeurIPS 2017), TensorFlow's way of
    resizing included. Grey images are repeated to three channels.
    """

    name = "inception"

    class Settings(PluginSettings):
        weights: Path | None = Field(
            None, description="file of torch-fidelity's Inception-v3 weights; none: downloaded"
        )

    def __init__(self, settings: Settings, workspace: Workspace) -> None:
        super().__init__(settings, workspace)
        path = PUBLISHED.path(settings.weights, workspace)
        self._weights_hash = file_digest(path)
        self._network = _network(path).to(workspace.device)

    @classmethod
    def availability(cls, settings: Settings, workspace: Workspace) -> Availability:
        return PUBLISHED.availability(settings.weights, workspace)

    @property
    def weights_hash(self) -> str:
        return self._weights_hash

    @property
    def resize(self) -> str:
        return resize_in_words(299)

    def __call__(self, images: Tensor) -> Features:
        import torch

        with torch.no_grad():
            rgb = images.to(self.workspace.device).expand(-1, 3, -1, -1)
            found = zip(*map(self._network, at_once(rgb)), strict=True)
            features, logits = (torch.cat(each).cpu() for each in found)
        return Features(features, logits)


def _network(path: Path) -> Any:
    """torch-fidelity's network with the weights of a file.

    It would unpickle the file without restraint, so it is given a copy of what
    ``weights_only=True`` lets through. Its random initialisation leaves torch's global generator
    as it was.
    """
    import torch
    from torch_fidelity import FeatureExtractorInceptionV3

    try:
        weights = io.BytesIO()
        torch.save(torch.load(path, map_location="cpu", weights_only=True), weights)
        weights.seek(0)
        with torch.random.fork_rng(devices=[]):
            return FeatureExtractorInceptionV3(
                "inception-v3-compat",
                ["2048", "logits_unbiased"],
                feature_extractor_weights_path=weights,
            )
    except (UnpicklingError, RuntimeError, EOFError, TypeError) as error:
        raise ScoreError(
            f"{path} does not hold torch-fidelity's Inception-v3 weights; {PUBLISHED.right}"
        ) from error
