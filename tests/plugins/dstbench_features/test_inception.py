"""Inception-v3: the same numbers as torch-fidelity's own evaluation of folders of images.

The published weights need the network, so that the real graph gets random ones here.
"""

import os
import pickle
from pathlib import Path
from unittest.mock import patch

import dstbench_features
import pytest
import torch
import torch_fidelity
from dstbench_features.inception import PUBLISHED, Inception
from PIL import Image
from torch import Tensor, nn

from dstbench.cache import Cache, file_digest
from dstbench.contracts import Availability, PluginSettings, Workspace
from dstbench.errors import ScoreError
from dstbench.metrics import extract, score
from dstbench.settings import EvaluationSettings


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(torch.device("cpu"), Cache(tmp_path / "cache"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights that keep the variance of activations (He et al., 2015), so that features
    differ from image to image."""
    with (
        patch("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url"),
        patch.object(torch_fidelity.FeatureExtractorInceptionV3, "load_state_dict"),
    ):
        network = torch_fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def extractor(weights: Path, workspace: Workspace) -> Inception:
    return Inception(Inception.Settings(weights=weights), workspace)


def random_images(count: int, seed: int, channels: int = 3) -> Tensor:
    """Uniform noise of a random brightness: images that differ by more than their noise."""
    rng = torch.Generator().manual_seed(seed)
    noise = torch.rand(count, channels, 16, 16, generator=rng)
    brightness = torch.rand(count, channels, 1, 1, generator=rng)
    return (255 * noise * brightness).byte()


def save_folder(images: Tensor, folder: Path) -> str:
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i:04}.png")
    return str(folder)


@pytest.mark.slow
def test_scores_are_torch_fidelitys(weights: Path, extractor: Inception, tmp_path: Path) -> None:
    samples, real = random_images(14, seed=1), random_images(12, seed=2)
    settings = EvaluationSettings(batch_size=5, kid_subsets=4, kid_subset_size=8, neighbours=2)
    metrics = [cls(PluginSettings(), settings) for cls in dstbench_features.dstbench_metrics()[:4]]
    fake = extract(samples.split(5), extractor)
    ours = score(fake, extract(real.split(5), extractor), settings, metrics)
    theirs = torch_fidelity.calculate_metrics(
        input1=save_folder(samples, tmp_path / "samples"),
        input2=save_folder(real, tmp_path / "real"),
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(weights),
        batch_size=5,
        cuda=False,
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        kid_subsets=4,
        kid_subset_size=8,
        prc_neighborhood=2,
        save_cpu_ram=True,
        cache=False,
        verbose=False,
    )
    assert ours.fid is not None
    assert ours.fid > 1e-2
    assert ours.model_dump(exclude={"others"}) == pytest.approx(
        {
            "fid": theirs["frechet_inception_distance"],
            "kid": theirs["kernel_inception_distance_mean"],
            "kid_std": theirs["kernel_inception_distance_std"],
            "inception_score": theirs["inception_score_mean"],
            "inception_score_std": theirs["inception_score_std"],
            "precision": theirs["precision"],
            "recall": theirs["recall"],
        },
        rel=1e-6,
        abs=1e-6,
    )


def test_shapes_types_and_names(extractor: Inception, weights: Path) -> None:
    seen = extractor(random_images(2, seed=0))
    assert seen.features.shape == (2, 2048)
    assert seen.logits.shape == (2, 1008)
    assert seen.features.dtype == seen.logits.dtype == torch.float32
    assert seen.features.std() > 0
    assert extractor.weights_hash == file_digest(weights)
    assert "299×299" in extractor.resize


def test_grey_images_are_repeated_to_three_channels(extractor: Inception) -> None:
    grey = random_images(1, seed=0, channels=1)
    assert torch.equal(extractor(grey).features, extractor(grey.repeat(1, 3, 1, 1)).features)


def test_building_it_leaves_the_random_numbers_alone(weights: Path, workspace: Workspace) -> None:
    before = torch.get_rng_state()
    Inception(Inception.Settings(weights=weights), workspace)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_network_the_error_says_what_to_do(workspace: Workspace) -> None:
    with (
        patch("dstbench_features.weights.download", side_effect=OSError("no route to host")),
        pytest.raises(ScoreError) as raised,
    ):
        Inception(Inception.Settings(), workspace)
    message = str(raised.value)
    assert "no route to host" in message
    assert PUBLISHED.url in message
    assert "setting 'weights'" in message


def test_the_published_weights_are_to_be_downloaded(workspace: Workspace) -> None:
    found = Inception.availability(Inception.Settings(), workspace)
    assert found == Availability("download", f"91 MB from {PUBLISHED.url}")


def test_a_missing_file_of_weights_is_named(workspace: Workspace, tmp_path: Path) -> None:
    settings = Inception.Settings(weights=tmp_path / "nowhere.pth")
    with pytest.raises(ScoreError, match=r"setting 'weights' .*nowhere\.pth") as raised:
        Inception(settings, workspace)
    missing = Availability("missing", str(raised.value))
    assert Inception.availability(settings, workspace) == missing


class Intruder:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.remove, (str(self.victim),)


def test_a_file_with_code_in_it_is_refused_and_not_run(
    workspace: Workspace, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.touch()
    for name, save in (("zip", torch.save), ("raw", _pickle)):
        path = tmp_path / f"{name}.pth"
        save({"weights": Intruder(victim)}, path)
        with pytest.raises(ScoreError, match="does not hold torch-fidelity's Inception-v3"):
            Inception(Inception.Settings(weights=path), workspace)
        assert victim.exists()


def _pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("content", [{}, {"fc.bias": torch.zeros(3)}, [1, 2], 5, None])
def test_a_file_with_other_weights_is_refused(
    content: object, workspace: Workspace, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ScoreError, match="does not hold torch-fidelity's Inception-v3"):
        Inception(Inception.Settings(weights=tmp_path / "other.pth"), workspace)


@pytest.mark.parametrize("content", [b"", b"not weights at all"])
def test_a_file_that_is_no_weights_is_refused(
    content: bytes, workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "junk.pth").write_bytes(content)
    with pytest.raises(ScoreError, match="does not hold torch-fidelity's Inception-v3"):
        Inception(Inception.Settings(weights=tmp_path / "junk.pth"), workspace)
