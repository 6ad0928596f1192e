"""Layers computed from their active weights are the masked dense ones, within rounding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from dstbench.kernels import Choice, use_kernels
from dstbench.kernels.modules import SparseConv2d

TOLERANCE = {"atol": 2e-5, "rtol": 2e-4}


def sparsify(layer: nn.Module, density: float, group: int = 1) -> torch.Tensor:
    """Mask a layer's weight, neighbouring output channels alike; the mask."""
    weight = layer.weight
    if weight.shape[0] % group:
        group = 1
    few = torch.rand(weight.shape[0] // group, *weight.shape[1:]) < density
    mask = few.repeat_interleave(group, dim=0)
    with torch.no_grad():
        weight.mul_(mask)
    return mask


def assert_like_dense(layer: nn.Module, mask: torch.Tensor, inputs: torch.Tensor) -> None:
    """Compare the layer's outputs and gradients with those of float64."""
    weights = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
    doubles = [weight.detach().double().requires_grad_() for weight in weights]
    parameters = dict(zip(("weight", "bias"), doubles, strict=False))
    exact_inputs = inputs.detach().double().requires_grad_()
    expected = torch.func.functional_call(layer, parameters, (exact_inputs,))

    use = use_kernels([layer], {"weight": mask}, Choice("sparse"))
    inputs = inputs.requires_grad_()
    outputs = layer(inputs)
    assert use.layers["weight"].in_use or mask.all()
    torch.testing.assert_close(outputs.double(), expected, **TOLERANCE)
    gradient = torch.randn_like(outputs)
    found = torch.autograd.grad(outputs, [inputs, *weights], gradient)
    wanted = torch.autograd.grad(expected, [exact_inputs, *doubles], gradient.double())
    scale = max(1.0, inputs.numel() ** 0.5 / 30)
    for index, (one, other) in enumerate(zip(found, wanted, strict=True)):
        other = other * mask if index == 1 and not mask.all() else other
        torch.testing.assert_close(one.double(), other, atol=5e-5 * scale, rtol=1e-3)
    use.stop()


@given(st.data())
@settings(max_examples=60)
def test_convolutions(data: st.DataObject) -> None:
    draw = data.draw
    torch.manual_seed(draw(st.integers(0, 2**16)))
    kernel = (draw(st.sampled_from([1, 2, 3, 5])), draw(st.sampled_from([1, 3])))
    padding = (draw(st.integers(0, 3)), draw(st.integers(0, 2)))
    size = [draw(st.integers(max(1, k - 2 * p), 18)) for k, p in zip(kernel, padding, strict=True)]
    inputs, outputs = draw(st.integers(1, 40)), draw(st.sampled_from([1, 3, 4, 6, 8, 16]))
    stride, bias = draw(st.sampled_from([1, 2])), draw(st.booleans())
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=bias)
    density = draw(st.sampled_from([0.0, 0.02, 0.1, 0.5, 1.0]))
    mask = sparsify(layer, density, draw(st.sampled_from([1, 2, 4])))
    batch = draw(st.sampled_from([1, 2, 15, 16, 17, 33]))
    assert_like_dense(layer, mask, torch.randn(batch, inputs, *size))


@given(st.data())
@settings(max_examples=60)
def test_linear_layers(data: st.DataObject) -> None:
    draw = data.draw
    torch.manual_seed(draw(st.integers(0, 2**16)))
    inputs, outputs = draw(st.integers(1, 50)), draw(st.sampled_from([1, 3, 4, 6, 8, 48]))
    layer = nn.Linear(inputs, outputs, bias=draw(st.booleans()))
    density = draw(st.sampled_from([0.0, 0.02, 0.1, 0.5, 1.0]))
    mask = sparsify(layer, density, draw(st.sampled_from([1, 2, 4])))
    shape = draw(st.sampled_from([(1,), (16,), (3, 11), (300,), (2, 5, 7)]))
    assert_like_dense(layer, mask, torch.randn(*shape, inputs))


@given(st.data())
@settings(max_examples=60)
def test_convolutions_of_normalized_images(data: st.DataObject) -> None:
    draw = data.draw
    torch.manual_seed(draw(st.integers(0, 2**16)))
    groups, inputs = draw(st.sampled_from([(1, 1), (1, 5), (2, 6), (4, 8), (8, 8)]))
    size = draw(st.integers(3, 9)), draw(st.sampled_from([3, 4, 16]))
    batch, plus = (
        draw(st.sampled_from([1, 15, 17, 33])),
        draw(st.sampled_from([None, "own", "all"])),
    )
    norm = nn.GroupNorm(groups, inputs, eps=draw(st.sampled_from([1e-6, 1e-2])))
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    layer = nn.Conv2d(inputs, 8, 3, draw(st.sampled_from([1, 2])), 1, bias=draw(st.booleans()))
    mask = sparsify(layer, draw(st.sampled_from([0.02, 0.3])), draw(st.sampled_from([1, 2, 4])))
    images = torch.randn(batch, inputs, *size) * 3 + torch.randn(inputs, 1, 1)
    shape = layer(images).shape if plus == "all" else (batch, 8, 1, 1)
    added = torch.randn(shape) if plus else torch.zeros(1)
    given = [images, *norm.parameters(), *layer.parameters(), added]

    doubles = [each.detach().double().requires_grad_() for each in given]
    exact, scale, shift, weight, *bias, addend = doubles
    normalized = functional.group_norm(exact, groups, scale, shift, norm.eps)
    expected = functional.silu(normalized)
    expected = functional.conv2d(expected, weight, bias[0] if bias else None, layer.stride, 1)
    expected = expected + addend

    use = use_kernels([layer], {"weight": mask}, Choice("sparse"))
    assert isinstance(layer, SparseConv2d)
    for each in given:
        each.requires_grad_()
    connections = layer.connections(images)
    assert connections is not None
    outputs = layer.normalized_forward(norm, images, added if plus else None, connections)
    assert outputs is not None
    torch.testing.assert_close(outputs.double(), expected, atol=5e-5, rtol=2e-4)
    gradient = torch.randn_like(outputs)
    count = len(given) if plus else -1
    found = torch.autograd.grad(outputs, given[:count], gradient)
    wanted = torch.autograd.grad(expected, doubles[:count], gradient.double())
    for one, other in zip(found, wanted, strict=True):
        other = other * mask if one.shape == mask.shape else other
        scale = max(1.0, images.numel() ** 0.5 / 30)
        torch.testing.assert_close(one.double(), other, atol=1e-4 * scale, rtol=1e-3)
    use.stop()


def test_one_connection_by_hand() -> None:
    layer = nn.Conv2d(2, 2, 3, padding=1, bias=False)
    mask = torch.zeros(2, 2, 3, 3, dtype=torch.bool)
    mask[1, 0, 0, 2] = True  # the pixel above, to the right
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[1, 0, 0, 2] = 3.0
    use = use_kernels([layer], {"weight": mask}, Choice("sparse"))
    image = torch.arange(8.0).view(1, 2, 2, 2)
    outputs = layer(image)
    assert outputs.tolist() == [[[[0, 0], [0, 0]], [[0, 0], [3 * 1.0, 0]]]]
    outputs.sum().backward()
    assert layer.weight.grad.count_nonzero() == 1
    assert layer.weight.grad[1, 0, 0, 2] == 1.0
    use.stop()


@pytest.mark.parametrize("density", [0.05, 0.5])
@pytest.mark.parametrize("size", [4, 16])
@pytest.mark.parametrize("group", [1, 4])
def test_results_do_not_depend_on_the_number_of_threads(
    density: float, size: int, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dstbench.kernels.functions._OF_ONE_THREAD", 0)
    torch.manual_seed(0)
    layer = nn.Conv2d(24, 40, 3, padding=1)
    mask = sparsify(layer, density, group)
    use = use_kernels([layer], {"weight": mask}, Choice("sparse"))
    images = torch.randn(20, 24, size, size, requires_grad=True)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            outputs = layer(images)
            results.append(
                [outputs, *torch.autograd.grad(outputs.square().sum(), [images, layer.weight])]
            )
    finally:
        torch.set_num_threads(before)
        use.stop()
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.parametrize("layer", [nn.Conv2d(6, 8, 3, 2, 1), nn.Linear(6, 8, bias=False)])
def test_gradients_can_be_differentiated(layer: nn.Module) -> None:
    torch.manual_seed(0)
    mask = sparsify(layer, 0.2)
    images = torch.randn(4, 6, 6, 6, requires_grad=True)

    def penalised() -> list[torch.Tensor]:
        outputs = layer(images).square().sum()
        (slope,) = torch.autograd.grad(outputs, images, create_graph=True)
        of_images, of_weight = torch.autograd.grad(slope.square().sum(), [images, layer.weight])
        return [slope, of_images, of_weight * mask]

    expected = penalised()
    use = use_kernels([layer], {"weight": mask}, Choice("sparse"))
    for one, other in zip(penalised(), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert use.layers["weight"].in_use
    use.stop()
