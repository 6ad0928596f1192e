"""Random scores: their layout, their distribution, and the generator that they come from."""

import pytest
import torch
from torch import Tensor, nn

from dstbench.sparsity import Layer, random_scores


def layer_of(weight: Tensor) -> Layer:
    return Layer("weight", nn.Parameter(weight))


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (4, 2, 3, 3)])
def test_random_scores_have_the_layers_layout(shape: tuple[int, ...]) -> None:
    weight = torch.zeros(shape)
    if weight.ndim == 4:
        weight = weight.to(memory_format=torch.channels_last)
    rng = torch.Generator().manual_seed(3)
    scores = random_scores(layer_of(weight), rng)
    assert scores.shape == weight.shape
    assert scores.stride() == weight.stride()
    assert scores.dtype == torch.int32
    assert scores.amin() >= 0
    assert not torch.equal(scores, random_scores(layer_of(weight), rng))
    rng.manual_seed(3)
    assert torch.equal(scores, random_scores(layer_of(weight), rng))


def test_random_scores_are_uniform_and_use_no_other_generator() -> None:
    before = torch.get_rng_state()
    scores = random_scores(layer_of(torch.zeros(200, 500)), torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)
    bins = torch.bincount(scores.flatten() >> 27, minlength=16)  # 2³¹ / 2²⁷ = 16 equal bins
    chi_square = ((bins - 6250.0).square() / 6250).sum().item()
    assert chi_square < 37.7  # 99.9 % quantile with 15 degrees of freedom
    halves = scores.flatten().reshape(-1, 2)  # the two halves of one 64-bit draw
    assert abs(torch.corrcoef(halves.T.double())[0, 1].item()) < 3.3 / 50_000**0.5
