"""The images' side of CLIP ViT-B/32, as torch-fidelity has it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from dstbench.cache import file_digest
from dstbench.contracts import Availability, FeatureExtractor, Features, PluginSettings, Workspace
from dstbench.errors import ScoreError
from dstbench_features.vision import as_input, resize_in_words
from dstbench_features.weights import Published

if TYPE_CHECKING:
    from torch import Tensor

PUBLISHED = Published(
    "clip",
    "https://huggingface.co/timm/vit_base_patch32_clip_224.openai/resolve/"
    "a6f597a30f7b82c51704746581f9a4e41421e878/open_clip_model.safetensors",
    "e6d1bd7789aa45192b3bf90570a789b478bae1b74ebcce7eddd908e83a2b7c31",
    605,
)

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class CLIP(FeatureExtractor["CLIP.Settings"]):
    """torch-fidelity's ``clip-vit-b-32``: OpenAI's image embedding, 512 features and no logits.

    'Learning Transferable Visual Models From Natural Language Supervision' (Radford et al., ICML
    2021). torch-fidelity would run code of the file that OpenAI publishes; this reads the same
    weights from timm's copy of them, which is under the Apache 2.0 licence. Without logits there
    is no Inception Score. Grey images are repeated to three channels.
    """

    name = "clip"
    library = "torch-fidelity"

    class Settings(PluginSettings):
        weights: Path | None = Field(
            None, description="safetensors file with OpenAI's names of weights; none: downloaded"
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
        return resize_in_words(self._network.input_resolution)

    def __call__(self, images: Tensor) -> Features:
        import torch

        with torch.no_grad():
            size = self._network.input_resolution
            seen = as_input(images.to(self.workspace.device), size, MEAN, STD)
            return Features(self._network(seen).cpu())


def _network(path: Path) -> Any:
    """torch-fidelity's network with the weights of a file; torch's global generator stays as it
    was."""
    import torch
    from torch_fidelity.feature_extractor_clip import build_model

    weights = PUBLISHED.tensors(path)
    try:
        with torch.random.fork_rng(devices=[]):
            return build_model(weights, torch.float32).visual
    except Exception as error:  # it takes all sizes from the tensors, whatever they are
        raise ScoreError(
            f"{path} does not hold OpenAI's weights of a CLIP network; {PUBLISHED.right}"
        ) from error
