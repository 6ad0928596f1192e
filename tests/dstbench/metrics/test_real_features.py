"""The features of real images: extracted once, a batch at a time, cached by content."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from dstbench_features.fidelity import FID
from torch import Tensor

from dstbench.cache import Cache
from dstbench.contracts import Data, FeatureExtractor, Features, PluginSettings, Workspace
from dstbench.errors import ScoreError
from dstbench.metrics import caveats, protocol, real_features
from dstbench.settings import EvaluationSettings


class Counting(FeatureExtractor):
    """Pixels as features; remembers how many images it saw at a time."""

    name = "counting"
    resize = "none"
    weights_hash = "0" * 64

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(PluginSettings(), workspace)
        self.batches: list[int] = []

    def __call__(self, images: Tensor) -> Features:
        self.batches.append(len(images))
        pixels = images.flatten(1).float()
        return Features(pixels, -pixels)


def to_images(items: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(items))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(torch.device("cpu"), Cache(tmp_path))


@pytest.fixture
def data() -> Data:
    pixels = torch.arange(14 * 4, dtype=torch.uint8).view(14, 1, 2, 2)
    return Data(tuple(pixels[:10]), tuple(pixels[10:]), "fingerprint", to_images)


def test_they_are_those_of_the_whole_split_in_order(workspace: Workspace, data: Data) -> None:
    extractor = Counting(workspace)
    settings = EvaluationSettings(batch_size=4)
    real = real_features(data, "toy", extractor, settings, workspace)
    assert extractor.batches == [4, 4, 2]
    assert torch.equal(real.features, torch.arange(40.0).view(10, 4))
    assert torch.equal(real.logits, -real.features)


def test_the_reference_split_can_be_the_validation_split(workspace: Workspace, data: Data) -> None:
    settings = EvaluationSettings(reference="validation")
    real = real_features(data, "toy", Counting(workspace), settings, workspace)
    assert torch.equal(real.features, torch.arange(40.0, 56.0).view(4, 4))


def test_they_are_extracted_once(workspace: Workspace, data: Data) -> None:
    settings = EvaluationSettings(batch_size=4)
    first = real_features(data, "toy", Counting(workspace), settings, workspace)
    again = Counting(workspace)
    other_batches = EvaluationSettings(batch_size=3, samples=5, neighbours=1)
    second = real_features(data, "toy", again, other_batches, workspace)
    assert again.batches == []
    assert torch.equal(first.features, second.features)
    assert torch.equal(first.logits, second.logits)


def test_they_are_gone_on_with_where_a_process_was_stopped(
    workspace: Workspace, data: Data, tmp_path: Path
) -> None:
    class Stopped(Counting):
        def __call__(self, images: Tensor) -> Features:
            if len(self.batches) == 2:
                raise KeyboardInterrupt
            return super().__call__(images)

    settings = EvaluationSettings(batch_size=3)
    with pytest.raises(KeyboardInterrupt):
        real_features(data, "toy", Stopped(workspace), settings, workspace)
    rest = Counting(workspace)
    found = real_features(data, "toy", rest, settings, workspace)
    assert rest.batches == [3, 1]
    elsewhere = Workspace(workspace.device, Cache(tmp_path / "elsewhere"))
    whole = real_features(data, "toy", Counting(workspace), settings, elsewhere)
    assert torch.equal(found.features, whole.features)
    assert torch.equal(found.logits, whole.logits)
    kept = {path.name for path in workspace.cache.root.glob("features-*/*")}
    assert kept == {"features.safetensors", "key.json", "checksums.json"}


def test_other_data_split_weights_or_resize_are_other_features(
    workspace: Workspace, data: Data
) -> None:
    class OtherWeights(Counting):
        weights_hash = "1" * 64

    class OtherResize(Counting):
        resize = "to 3×3"

    class OtherName(Counting):
        name = "other"

    train = EvaluationSettings()
    real_features(data, "toy", Counting(workspace), train, workspace)
    others = [
        (replace(data, fingerprint="other"), Counting(workspace), train),
        (data, Counting(workspace), EvaluationSettings(reference="validation")),
        (data, OtherWeights(workspace), train),
        (data, OtherResize(workspace), train),
        (data, OtherName(workspace), train),
    ]
    for other_data, extractor, settings in others:
        real_features(other_data, "toy", extractor, settings, workspace)
        assert extractor.batches != []


def test_too_small_a_reference_split_is_refused(workspace: Workspace, data: Data) -> None:
    settings = EvaluationSettings(reference="validation", neighbours=4)
    with pytest.raises(ScoreError, match=r"4 images in toy/validation, .* at least 5"):
        real_features(data, "toy", Counting(workspace), settings, workspace)


def test_the_protocol_says_how_samples_are_scored(workspace: Workspace, data: Data) -> None:
    extractor = Counting(workspace)
    settings = EvaluationSettings(samples=100)
    real = real_features(data, "toy", extractor, settings, workspace)
    assert protocol(
        "toy", extractor, settings, real, [FID(PluginSettings(), settings)]
    ).model_dump() == {
        "extractor": "counting",
        "weights_hash": "0" * 64,
        "resize": "none",
        "samples": 100,
        "reference": "toy/train",
        "reference_images": 10,
        "features": 4,
        "neighbours": 3,
        "kid_subsets": 100,
        "kid_subset_size": 10,
        "kid_scale": 1.0,
        "inception_score_splits": 10,
        "library": f"torch-fidelity {version('torch-fidelity')}",
        "others": (),
    }


@pytest.mark.parametrize(
    ("samples", "reference_images", "warned_of"),
    [(65, 65, []), (64, 65, ["64 samples"]), (65, 9, ["9 reference images"])],
)
def test_a_singular_covariance_is_warned_of(
    workspace: Workspace, samples: int, reference_images: int, warned_of: list[str]
) -> None:
    real = Features(torch.zeros(reference_images, 64), torch.zeros(reference_images, 10))
    settings = EvaluationSettings(samples=samples)
    sentences = caveats(protocol("toy", Counting(workspace), settings, real, []))
    assert len(sentences) == len(warned_of)
    for sentence, what in zip(sentences, warned_of, strict=True):
        assert f"64 features of only {what}" in sentence
        assert "KID" in sentence
