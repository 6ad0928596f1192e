"""CLIP: torch-fidelity's own features, of a network of the same layout that is tiny and random."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import dstbench_features
import pytest
import torch
from dstbench_features import clip
from dstbench_features.clip import CLIP
from safetensors.torch import save_file
from torch import Tensor
from torch_fidelity.feature_extractor_clip import CLIPVisual, FeatureExtractorCLIP

from dstbench.cache import Cache, file_digest
from dstbench.contracts import READY, PluginSettings, Workspace
from dstbench.errors import ScoreError
from dstbench.metrics import extract, in_words, protocol, score
from dstbench.settings import METRICS, EvaluationSettings

FEATURES, SIZE = 24, 64


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(torch.device("cpu"), Cache(tmp_path / "cache"))


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    """What OpenAI's file holds, and something of the text's side, which is left."""
    rng = torch.Generator().manual_seed(0)
    shapes = CLIPVisual(FEATURES, SIZE, vision_layers=2, vision_width=64, vision_patch_size=32)
    named = {
        name: 0.3 * torch.randn(values.shape, generator=rng)
        for name, values in shapes.state_dict().items()
    }
    return named | {"text_projection": torch.zeros(8, FEATURES), "ln_final.bias": torch.zeros(8)}


@pytest.fixture(scope="module")
def weights(tensors: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "weights.safetensors"
    save_file(tensors, path)
    return path


@pytest.fixture
def extractor(weights: Path, workspace: Workspace) -> CLIP:
    return CLIP(CLIP.Settings(weights=weights), workspace)


def random_images(count: int, seed: int = 0, shape: tuple[int, int, int] = (3, 16, 24)) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, *shape), generator=rng).to(torch.uint8)


@pytest.mark.parametrize("shape", [(3, 16, 24), (3, 64, 64), (3, 90, 70)])
def test_features_are_torch_fidelitys(
    shape: tuple[int, int, int], extractor: CLIP, tensors: dict[str, Tensor]
) -> None:
    loaded = SimpleNamespace(state_dict=lambda: dict(tensors))
    with patch("torch.jit.load", return_value=loaded):
        theirs = FeatureExtractorCLIP("clip-vit-b-32", ["clip"], "a file that runs code")
    images = random_images(3, shape=shape)
    found = extractor(images)
    assert found.logits is None
    assert found.features.shape == (3, FEATURES)
    assert found.features.std(dim=0).min() > 0.001
    assert torch.equal(found.features, theirs(images)[0])


def test_what_tells_its_scores_from_others(extractor: CLIP, weights: Path) -> None:
    assert extractor.weights_hash == file_digest(weights)
    assert extractor.resize == "bilinear (TensorFlow 1) to 64×64"


def test_grey_images_are_repeated_to_three_channels(extractor: CLIP) -> None:
    grey = random_images(1, shape=(1, 16, 16))
    assert torch.equal(extractor(grey).features, extractor(grey.repeat(1, 3, 1, 1)).features)


def test_building_it_leaves_the_random_numbers_alone(weights: Path, workspace: Workspace) -> None:
    before = torch.get_rng_state()
    CLIP(CLIP.Settings(weights=weights), workspace)
    assert torch.equal(torch.get_rng_state(), before)


def test_all_scores_but_inception_score(extractor: CLIP) -> None:
    settings = EvaluationSettings(
        samples=14, kid_subset_size=8, neighbours=2, metrics=(*METRICS, "density-coverage")
    )
    pytest.importorskip("prdc")
    metrics = [cls(PluginSettings(), settings) for cls in dstbench_features.dstbench_metrics()]
    real = extract([random_images(12, seed=1)], extractor)
    scores = score(extract([random_images(14)], extractor), real, settings, metrics)
    assert scores.fid is not None
    assert scores.fid > 0
    assert None not in (scores.kid, scores.precision, scores.recall)
    assert scores.others.keys() == {"density", "coverage"}
    assert scores.inception_score is None
    told = protocol("mine", extractor, settings, real, metrics)
    assert told.inception_score_splits is None
    assert "IS: none, because clip has no logits;" in in_words(told)


def test_the_published_weights_are_downloaded(
    weights: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = replace(clip.PUBLISHED, url=weights.as_uri(), sha256=file_digest(weights))
    monkeypatch.setattr(clip, "PUBLISHED", mine)
    assert CLIP.availability(CLIP.Settings(), workspace).state == "download"
    assert CLIP(CLIP.Settings(), workspace).weights_hash == file_digest(weights)
    assert CLIP.availability(CLIP.Settings(), workspace) == READY


@pytest.mark.parametrize("left_out", ["visual.proj", "text_projection", "visual.ln_post.bias"])
def test_other_weights_are_refused(
    left_out: str, tensors: dict[str, Tensor], workspace: Workspace, tmp_path: Path
) -> None:
    save_file({k: v for k, v in tensors.items() if k != left_out}, tmp_path / "w.safetensors")
    with pytest.raises(ScoreError, match=r"does not hold OpenAI's weights .* the file from https"):
        CLIP(CLIP.Settings(weights=tmp_path / "w.safetensors"), workspace)
