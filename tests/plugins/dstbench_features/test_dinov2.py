"""DINOv2: what torch-fidelity's extractor sees, by a network with random weights."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from dstbench_features import dinov2
from dstbench_features.dinov2 import DINOv2
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2

from dstbench.cache import Cache, file_digest
from dstbench.contracts import READY, Workspace
from dstbench.errors import PluginError, ScoreError

WIDTH, HEADS, BLOCKS = 384, 6, 12


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(torch.device("cpu"), Cache(tmp_path / "cache"))


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    """Random weights with the names and shapes of the published ViT-S/14."""
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        shapes = timm.create_model("vit_small_patch14_dinov2", num_classes=0).state_dict()
    rng = torch.Generator().manual_seed(0)
    return {name: 0.05 * torch.randn(v.shape, generator=rng) for name, v in shapes.items()} | {
        name: 1 + 0.1 * torch.randn(v.shape, generator=rng)
        for name, v in shapes.items()
        if "gamma" in name or ("norm" in name and "weight" in name)
    }


@pytest.fixture(scope="module")
def weights(tensors: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dinov2") / "weights.safetensors"
    save_file(tensors, path)
    return path


@pytest.fixture
def extractor(weights: Path, workspace: Workspace) -> DINOv2:
    return DINOv2(DINOv2.Settings(size="small", weights=weights), workspace)


class AsPublished(nn.Module):
    """The network that torch-fidelity downloads and runs, worked out step by step."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.tensors = tensors

    def forward(self, images: Tensor) -> Tensor:
        w = self.tensors
        patches = F.conv2d(images, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], 14)
        trained = w["pos_embed"][0, 1:].T.reshape(1, WIDTH, 37, 37)
        places = F.interpolate(trained, scale_factor=(16.1 / 37, 16.1 / 37), mode="bicubic")
        token = (w["cls_token"] + w["pos_embed"][:, :1]).expand(len(images), -1, -1)
        x = torch.cat([token, (patches + places).flatten(2).mT], dim=1)
        for block in range(BLOCKS):
            here = {n.split(".", 2)[2]: v for n, v in w.items() if n.startswith(f"blocks.{block}.")}
            x = x + here["ls1.gamma"] * self.attended(normed(x, here, "norm1"), here)
            hidden = F.gelu(linear(normed(x, here, "norm2"), here, "mlp.fc1"))
            x = x + here["ls2.gamma"] * linear(hidden, here, "mlp.fc2")
        return normed(x, w, "norm")[:, 0]

    def attended(self, x: Tensor, here: dict[str, Tensor]) -> Tensor:
        heads = linear(x, here, "attn.qkv").unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        return linear(found, here, "attn.proj")


def linear(x: Tensor, tensors: dict[str, Tensor], name: str) -> Tensor:
    return F.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])


def normed(x: Tensor, tensors: dict[str, Tensor], name: str) -> Tensor:
    return F.layer_norm(x, (WIDTH,), tensors[f"{name}.weight"], tensors[f"{name}.bias"], 1e-6)


def random_images(count: int, shape: tuple[int, int, int] = (3, 16, 24)) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, *shape), generator=rng).to(torch.uint8)


def test_features_are_torch_fidelitys(extractor: DINOv2, tensors: dict[str, Tensor]) -> None:
    with patch("torch.hub.load", return_value=AsPublished(tensors)):
        theirs: Any = FeatureExtractorDinoV2("dinov2-vit-s-14", ["dinov2"])
    images = torch.cat([random_images(1), random_images(1) // 9])
    found = extractor(images)
    assert found.logits is None
    assert found.features.shape == (2, 384)
    assert found.features.std(dim=0).min() > 0.001
    torch.testing.assert_close(found.features, theirs(images)[0], rtol=1e-3, atol=1e-4)


def test_what_tells_its_scores_from_others(extractor: DINOv2, weights: Path) -> None:
    assert extractor.weights_hash == file_digest(weights)
    assert extractor.resize == "bilinear (TensorFlow 1) to 224×224"
    assert extractor.library == "timm"


def test_grey_images_are_repeated_to_three_channels(extractor: DINOv2) -> None:
    grey = random_images(1, (1, 16, 16))
    assert torch.equal(extractor(grey).features, extractor(grey.repeat(1, 3, 1, 1)).features)


def test_the_published_weights_are_downloaded(
    weights: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = replace(dinov2.PUBLISHED["small"], url=weights.as_uri(), sha256=file_digest(weights))
    monkeypatch.setitem(dinov2.PUBLISHED, "small", mine)
    settings = DINOv2.Settings(size="small")
    assert DINOv2.availability(settings, workspace).state == "download"
    before = torch.get_rng_state()
    assert DINOv2(settings, workspace).weights_hash == file_digest(weights)
    assert torch.equal(torch.get_rng_state(), before)
    assert DINOv2.availability(settings, workspace) == READY


def test_weights_of_another_size_are_refused(
    weights: Path, tensors: dict[str, Tensor], workspace: Workspace, tmp_path: Path
) -> None:
    fewer = {name: values for name, values in tensors.items() if name.startswith("norm")}
    save_file(fewer, tmp_path / "w.safetensors")
    settings = [
        DINOv2.Settings(size="base", weights=weights),
        DINOv2.Settings(size="small", weights=tmp_path / "w.safetensors"),
    ]
    for each in settings:
        with pytest.raises(ScoreError, match=r"does not hold timm's weights .* from https") as told:
            DINOv2(each, workspace)
        assert f'size = "{each.size}"' in str(told.value)


def test_without_timm_it_says_what_to_install(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    found = DINOv2.availability(DINOv2.Settings(), workspace)
    assert found.state == "missing"
    assert "pip install 'dstbench[dinov2]'" in found.detail
    with pytest.raises(PluginError, match="dinov2"):
        DINOv2(DINOv2.Settings(), workspace)
