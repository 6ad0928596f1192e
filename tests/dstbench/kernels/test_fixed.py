"""Weights that are fixed are looked through once, and are still what they are."""

import pytest
import torch
from masked import masks_of
from torch import Tensor, nn

from dstbench.kernels import Choice, fixed, fixed_weights, use_kernels

LAYERS = [
    (lambda: nn.Conv2d(6, 8, 3), (2, 6, 5, 5)),
    (lambda: nn.Linear(6, 8), (20, 6)),
    (lambda: nn.GRU(6, 8, batch_first=True, bidirectional=True), (3, 4, 6)),
]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The weights that active values are picked out of, one after another."""
    found = []
    original = fixed.packed

    def note(weight: Tensor, *args: object) -> Tensor:
        found.append(weight)
        return original(weight, *args)

    monkeypatch.setattr(fixed, "packed", note)
    return found


@pytest.fixture(params=LAYERS, ids=["convolution", "linear", "gru"])
def layer(request: pytest.FixtureRequest) -> tuple[nn.Module, dict[str, Tensor], Tensor]:
    """A layer that uses kernels, its masks, and inputs."""
    torch.manual_seed(0)
    make, shape = request.param
    made = make()
    masks = masks_of(made)
    use_kernels([made], masks, Choice("sparse"))
    return made, masks, torch.randn(shape)


def outputs(layer: nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        found = layer(inputs)
    return found if isinstance(found, Tensor) else found[0]


def test_values_are_found_once(layer: tuple, looks: list[Tensor]) -> None:
    module, masks, inputs = layer
    expected = outputs(module, inputs)
    assert not looks
    with fixed_weights():
        assert all(torch.equal(outputs(module, inputs), expected) for _ in range(3))
    assert len(looks) == len(masks)


def test_what_is_written_to_a_weight_is_seen(layer: tuple) -> None:
    module, _, inputs = layer
    with fixed_weights():
        before = outputs(module, inputs)
        with torch.no_grad():
            for weight in module.parameters():
                weight.mul_(2)
        within = outputs(module, inputs)
    assert not torch.equal(before, within)
    assert torch.equal(within, outputs(module, inputs))


def test_a_mask_that_changes_is_seen(layer: tuple) -> None:
    module, masks, inputs = layer
    with fixed_weights():
        outputs(module, inputs)
        for name, weight in module.named_parameters():
            if name in masks:
                masks[name].copy_(torch.rand_like(weight) < 0.5)
                weight.data.normal_().mul_(masks[name])
        within = outputs(module, inputs)
    assert torch.equal(within, outputs(module, inputs))


def test_values_are_forgotten_afterwards(layer: tuple) -> None:
    module, _, inputs = layer
    with fixed_weights():
        before = outputs(module, inputs)
    for weight in module.parameters():
        weight.data.mul_(2)
    with fixed_weights():
        assert not torch.equal(outputs(module, inputs), before)


def test_gradients_are_those_of_whole_weights(layer: tuple) -> None:
    module, _, inputs = layer

    def gradients() -> tuple[Tensor, ...]:
        found = module(inputs)
        found = found if isinstance(found, Tensor) else found[0]
        return torch.autograd.grad(found.square().sum(), list(module.parameters()))

    expected = gradients()
    with fixed_weights():
        gradients()
        found = gradients()
    assert all(map(torch.equal, found, expected))
