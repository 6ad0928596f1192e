import math

import pytest
import torch
from dstbench_moons import Moons, TinyFlow, draw
from torch import Tensor, nn

from dstbench.cache import Cache
from dstbench.contracts import Workspace
from dstbench.errors import DivergedError
from dstbench.testing import Check, checks


@pytest.mark.parametrize("check", checks(Moons), ids=str)
def test_the_dataset_keeps_its_promises(check: Check) -> None:
    check()


@pytest.mark.parametrize("check", checks(TinyFlow), ids=str)
def test_the_model_keeps_its_promises(check: Check) -> None:
    check()


def picture(angle: float, phase: float, radius: float) -> list[str]:
    (image,) = draw(*torch.tensor([[angle], [phase], [radius]]), size=6)
    return ["".join(".#"[value > 127] for value in row) for row in image[0].tolist()]


def test_moons_by_hand() -> None:
    full = [".####.", "######", "######", "######", "######", ".####."]
    assert picture(angle=0, phase=1, radius=1) == full
    assert picture(angle=0, phase=0, radius=1) == ["......"] * 6
    half = ["...##.", "...###", "...###", "...###", "...###", "...##."]
    assert picture(angle=0, phase=0.5, radius=1) == half
    assert picture(angle=math.pi, phase=0.5, radius=1) == [row[::-1] for row in half]
    small = ["......", "......", "..##..", "..##..", "......", "......"]
    assert picture(angle=0, phase=1, radius=0.5) == small


@pytest.fixture
def model() -> TinyFlow:
    workspace = Workspace(torch.device("cpu"), Cache())
    data = Moons(Moons.Settings(train=8, validation=0)).load(workspace)
    return TinyFlow(TinyFlow.Settings(sampling_steps=4), data, workspace)


class Towards(nn.Module):
    """Knows the one image there is: its velocity is exact."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.image = image

    def forward(self, images: Tensor, times: Tensor) -> Tensor:
        return (images - self.image) / times.view(-1, 1, 1, 1)


def test_an_exact_denoiser_has_no_loss_and_samples_the_image(model: TinyFlow) -> None:
    batch = model.batch("train", torch.tensor([3]))
    denoiser = Towards(batch)
    rng = torch.Generator().manual_seed(0)
    assert model.loss(denoiser, batch, rng).item() == pytest.approx(0, abs=1e-9)
    samples = model.sample(denoiser, 5, 2, rng)
    assert torch.equal(samples, model.data.train[3].expand(5, 1, 8, 8))


def test_samples_that_are_not_finite(model: TinyFlow) -> None:
    with pytest.raises(DivergedError, match="not finite"):
        model.sample(Towards(torch.tensor(torch.nan)), 1, 1, torch.Generator())
