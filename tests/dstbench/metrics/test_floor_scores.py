"""Floors: their order, which images they are of, and that each is computed once."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from dstbench_features.fidelity import FID
from torch import Tensor

from dstbench.cache import Cache
from dstbench.contracts import Data, FeatureExtractor, Features, PluginSettings, Workspace
from dstbench.metrics import Floors, protocol, real_features
from dstbench.metrics.distorted import blurred, shuffled, upside_down
from dstbench.settings import EvaluationSettings


class Pixels(FeatureExtractor):
    name = "pixels"
    weights_hash = "0" * 64
    resize = "none"
    seen = 0

    def __call__(self, images: Tensor) -> Features:
        self.seen += len(images)
        return Features(images.flatten(1).float())


class FirstStage:
    """Reconstructs training images with an error."""

    def __init__(self, data: Data, error: int | None) -> None:
        self.data, self.error = data, error

    def reconstructions(self, split: str, indices: Tensor) -> Any:
        if self.error is None:
            return None
        return torch.stack([self.data.train[i] + self.error for i in indices.tolist()])


def slopes(count: int, seed: int) -> list[Tensor]:
    """8×8 images, brighter downwards, each with sharp lines of its own."""
    rng = torch.Generator().manual_seed(seed)
    lines = torch.randint(0, 90, (count, 1, 1, 8), generator=rng)
    return list((lines + 16 * torch.arange(8)[:, None] + torch.zeros(1, 1, 8, 8)).byte())


def floors(workspace: Workspace, held_out: int, **settings: Any) -> Floors:
    data = Data.of_images(slopes(60, 0), slopes(held_out, 1))
    extractor = Pixels(PluginSettings(), workspace)
    evaluation = EvaluationSettings(**{"samples": 40, "neighbours": 1, **settings})
    real = real_features(data, "slopes", extractor, evaluation, workspace)
    extractor.seen = 0
    metrics = [FID(PluginSettings(), evaluation)]
    asked = protocol("slopes", extractor, evaluation, real, metrics)
    return Floors(data, extractor, evaluation, metrics, real, asked, workspace)


def fids(of: Floors) -> dict[str, float]:
    return {floor.name: floor.scores.fid or 0.0 for floor in of.of_real_images()}


def test_real_images_score_better_than_distorted_ones(workspace: Workspace) -> None:
    found = fids(floors(workspace, held_out=30))
    assert list(found) == [
        "real (validation)", "real, blurred", "real, upside down", "real, patches shuffled"
    ]  # fmt: skip
    assert found["real (validation)"] < min(list(found.values())[1:])


def test_half_is_scored_against_half_where_nothing_is_held_out(workspace: Workspace) -> None:
    first = floors(workspace, held_out=0).of_real_images()[0]
    assert first.name == "real (half against half)"
    assert (first.images, first.reference_images) == (30, 30)


def test_there_are_as_many_images_as_samples(workspace: Workspace) -> None:
    found = floors(workspace, held_out=30).of_real_images()
    assert [each.images for each in found] == [30, 40, 40, 40]
    assert {each.reference_images for each in found} == {60}


def test_the_reference_may_be_the_held_out_split(workspace: Workspace) -> None:
    first = floors(workspace, held_out=30, reference="validation").of_real_images()[0]
    assert (first.name, first.images, first.reference_images) == ("real (train)", 40, 30)


def test_they_are_computed_once_for_each_protocol(workspace: Workspace) -> None:
    first = floors(workspace, held_out=30)
    lines = first.of_real_images()
    assert first.extractor.seen == 30 + 3 * 40  # type: ignore[attr-defined]
    again = floors(workspace, held_out=30, batch_size=7)
    assert again.of_real_images() == lines
    assert again.extractor.seen == 0  # type: ignore[attr-defined]
    other = floors(workspace, held_out=30, samples=20)
    assert [each.images for each in other.of_real_images()] == [20] * 4


def test_batch_size_changes_no_floor(workspace: Workspace) -> None:
    lines = floors(workspace, held_out=30, batch_size=7).of_real_images()
    elsewhere = replace(workspace, cache=Cache(workspace.cache.root / "elsewhere"))
    assert floors(elsewhere, held_out=30, batch_size=40).of_real_images() == lines


@pytest.mark.parametrize(("error", "lines"), [(None, 0), (0, 1), (5, 1)])
def test_a_first_stage_has_a_floor(workspace: Workspace, error: int | None, lines: int) -> None:
    ours = floors(workspace, held_out=30)
    model: Any = FirstStage(ours.data, error)
    found = ours.of_reconstructions(model, {"error": error})
    assert len(found) == lines
    for floor in found:
        assert floor.kind == "reconstructed"
        assert floor.scores.fid is not None
        assert floor.scores.fid >= 64 * (error or 0) ** 2 - 1e-3


def test_distortions_by_hand() -> None:
    rows = torch.arange(8, dtype=torch.uint8)[None, None, :, None].expand(2, 3, 8, 8)
    assert torch.equal(upside_down(rows)[0, 0, :, 0], torch.arange(7, -1, -1).byte())
    flat = torch.full((1, 1, 8, 8), 9, dtype=torch.uint8)
    assert torch.equal(blurred(flat), flat)
    spot = flat.clone()
    spot[..., 0, 0] = 255
    assert blurred(spot)[..., 0, 0].item() == round(9 + 246 / 16)  # the mean of a 4×4 block, twice
    pixels = torch.arange(2 * 81).view(2, 1, 9, 9).to(torch.uint8)
    mixed = shuffled(pixels)
    assert not torch.equal(mixed, pixels)
    assert torch.equal(mixed[..., 8, :], pixels[..., 8, :])  # does not fill a patch
    for image, other in zip(pixels, mixed, strict=True):
        assert sorted(image.flatten().tolist()) == sorted(other.flatten().tolist())
