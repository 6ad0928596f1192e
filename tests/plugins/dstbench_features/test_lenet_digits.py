"""The shipped digit classifier: as accurate as claimed, and a sensible measure of distance."""

import json
import re

import dstbench_features
import pytest
import torch
from dstbench_features.lenet import FEATURES, as_input
from dstbench_features.lenet_digits import WEIGHTS, LeNetDigits
from dstbench_features.train_lenet_digits import _seen, digits
from dstbench_images.digits import Digits
from torch import Tensor
from torch.nn import functional as F

from dstbench.cache import Cache, file_digest
from dstbench.contracts import Features, PluginSettings, Workspace
from dstbench.metrics import extract, sample_features
from dstbench.metrics import score as score_features
from dstbench.records import Scores
from dstbench.settings import EvaluationSettings


@pytest.fixture(scope="module")
def extractor() -> LeNetDigits:
    return LeNetDigits(PluginSettings(), Workspace(torch.device("cpu"), Cache()))


@pytest.fixture(scope="module")
def samples() -> Tensor:
    """A third of the digits, which are compared with the others."""
    return digits()[0][::3]


@pytest.fixture(scope="module")
def real(extractor: LeNetDigits) -> Features:
    images, _ = digits()
    return extract([torch.cat([images[1::3], images[2::3]])], extractor)


def test_it_reads_digits_that_it_was_not_trained_on_as_recorded(extractor: LeNetDigits) -> None:
    images, labels = digits()
    recorded = json.loads(WEIGHTS.with_suffix(".json").read_text())
    measured = (extractor(images).logits.argmax(dim=1) == labels).float().mean().item()
    assert len(images) == recorded["held_out_images"] == 1797
    assert measured >= 0.96
    assert measured == pytest.approx(recorded["held_out_accuracy"], abs=2.01 / 1797)


def test_the_digits_that_it_reads_are_those_of_the_dataset(extractor: LeNetDigits) -> None:
    data = Digits(PluginSettings()).load(extractor.workspace)
    ours = {image.numpy().tobytes() for image in digits()[0]}
    assert {image.numpy().tobytes() for image in [*data.train, *data.validation]} == ours


def test_a_digit_is_seen_without_its_margins_and_as_coarse_as_asked_for() -> None:
    """Six pixels high and two wide, anywhere in its frame: a third of a square's width."""
    digit = torch.zeros(28, 28)
    digit[15:21, 3:5] = 255
    fine, coarse = _seen(digit, 32), _seen(digit, 8)
    assert fine.shape == coarse.shape == (1, 32, 32)
    assert (fine[0, :, 15:17] > 250).all()
    assert not fine[0, :, :8].any()
    assert not fine[0, :, -8:].any()
    assert torch.equal(fine, _seen(digit.roll((-9, 12), (0, 1)), 32))
    assert coarse[0].var(dim=1).max() < fine[0].var(dim=1).max()
    assert _seen(digit.T, 32).min() > 250  # a line that lies is squeezed


def test_the_weights_are_small_and_named_by_their_hash(extractor: LeNetDigits) -> None:
    assert WEIGHTS.stat().st_size <= 1_000_000
    assert re.fullmatch("[0-9a-f]{64}", extractor.weights_hash)
    assert extractor.weights_hash == file_digest(WEIGHTS)
    assert extractor.weights_hash == json.loads(WEIGHTS.with_suffix(".json").read_text())["sha256"]


def test_shapes_and_types(extractor: LeNetDigits, samples: Tensor) -> None:
    seen = extractor(samples[:5])
    assert seen.features.shape == (5, FEATURES)
    assert seen.logits.shape == (5, 10)
    assert seen.features.dtype == seen.logits.dtype == torch.float32
    assert not seen.features.requires_grad


def test_grey_and_three_equal_channels_are_the_same_image(
    extractor: LeNetDigits, samples: Tensor
) -> None:
    grey = extractor(samples[:8])
    coloured = extractor(samples[:8].expand(-1, 3, -1, -1))
    torch.testing.assert_close(grey.features, coloured.features, rtol=1e-4, atol=1e-4)


def test_input_is_resized_and_scaled() -> None:
    assert torch.equal(
        as_input(torch.full((1, 1, 32, 32), 51).byte()), torch.full((1, 1, 32, 32), 0.2)
    )
    large = torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    large[..., ::2] = 255  # stripes that a resize without antialiasing would turn into one grey
    assert as_input(large).shape == (1, 1, 32, 32)
    assert as_input(large)[..., 1:-1].mean() == pytest.approx(0.5, abs=1e-3)


def score(
    samples: Tensor, real: Features, extractor: LeNetDigits, settings: EvaluationSettings
) -> Scores:
    metrics = [cls(PluginSettings(), settings) for cls in dstbench_features.dstbench_metrics()[:4]]
    fake = sample_features(samples, extractor, settings)
    return score_features(fake, real, settings, metrics)


@pytest.mark.parametrize("batch_size", [1, 7])
def test_batch_size_changes_no_score(
    extractor: LeNetDigits, samples: Tensor, real: Features, batch_size: int
) -> None:
    samples = samples[:100]
    whole = score(samples, real, extractor, EvaluationSettings(batch_size=100, kid_subsets=5))
    parts = EvaluationSettings(batch_size=batch_size, kid_subsets=5)
    scores = score(samples, real, extractor, parts)
    for name, expected in whole.model_dump(exclude={"others"}).items():
        value = scores.get(name)
        assert value == pytest.approx(expected, rel=1e-4, abs=1e-4), name


def fid(samples: Tensor, real: Features, extractor: LeNetDigits) -> float:
    value = score(samples, real, extractor, EvaluationSettings(kid_subsets=1)).fid
    assert value is not None
    return value


def test_the_noisier_the_images_the_larger_the_fid(
    extractor: LeNetDigits, samples: Tensor, real: Features
) -> None:
    noise = 255 * torch.randn(samples.shape, generator=torch.Generator().manual_seed(0))
    noisy = [(samples + level * noise).clamp(0, 255).byte() for level in (0, 0.2, 0.4, 0.8)]
    fids = [fid(images, real, extractor) for images in noisy]
    assert fids == sorted(fids)
    assert fids[0] < 0.1 * fids[-1]


def test_the_more_blurred_the_images_the_larger_the_fid(
    extractor: LeNetDigits, samples: Tensor, real: Features
) -> None:
    blurred = [
        F.avg_pool2d(samples.float(), size, 1, size // 2, count_include_pad=False).byte()
        for size in (1, 5, 9, 17)
    ]
    fids = [fid(images, real, extractor) for images in blurred]
    assert fids == sorted(fids)
    assert fids[0] < 0.1 * fids[-1]


def test_images_without_one_of_the_digits_are_farther_away(
    extractor: LeNetDigits, real: Features
) -> None:
    images, labels = (each[::3] for each in digits())
    complete, incomplete = fid(images, real, extractor), fid(images[labels != 3], real, extractor)
    assert incomplete > complete
