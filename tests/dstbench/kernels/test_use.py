"""Kernels in a network: which layers they take, and what leaves them out."""

import copy
import io
import pickle
import warnings

import pytest
import torch
from masked import masks_of
from torch import nn
from torch.func import functional_call, vmap

from dstbench.errors import SparsityError
from dstbench.kernels import Choice, KernelUse, use_kernels
from dstbench.kernels.use import left_masked


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.Conv2d(8, 4, 1), nn.Linear(6, 5)
    )


@pytest.fixture
def model() -> nn.Sequential:
    return network()


@pytest.fixture
def use(model: nn.Sequential) -> KernelUse:
    return use_kernels([model], masks_of(model), Choice("sparse"))


IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def test_all_layers_are_taken_and_given_back(model: nn.Sequential, use: KernelUse) -> None:
    outputs = model(IMAGES)
    assert use.describe() == "sparse in 3 of 3 layers that they take"
    assert isinstance(model[0], nn.Conv2d)
    use.stop()
    assert [type(each) for each in model] == [nn.Conv2d, nn.GroupNorm, nn.Conv2d, nn.Linear]
    torch.testing.assert_close(model(IMAGES), outputs, atol=1e-5, rtol=1e-4)


def test_masked_kernels_change_nothing() -> None:
    model = network()
    use = use_kernels([model], masks_of(model), Choice("masked"))
    assert type(model[0]) is nn.Conv2d
    assert use.describe() == "masked dense"


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, dilation=2),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, stride=3),
        nn.Conv2d(4, 4, 3, stride=(1, 2)),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        nn.ConvTranspose2d(4, 4, 3),
        nn.Conv2d(4, 4, 3, dtype=torch.float64),
        nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3)),
    ],
    ids=lambda layer: repr(layer)[:60].replace("\n", ""),
)
def test_other_layers_stay_as_they_are(layer: nn.Module) -> None:
    before = type(layer)
    masks = {
        name: torch.rand(weight.shape).to(weight.device) < 0.3
        for name, weight in layer.named_parameters()
        if weight.ndim == 4
    }
    use = use_kernels([layer], masks, Choice("sparse"))
    assert type(layer) is before
    assert not use.layers


def test_a_layer_with_an_unmasked_weight_stays(model: nn.Sequential) -> None:
    masks = masks_of(model)
    del masks["0.weight"]
    use_kernels([model], masks, Choice("sparse"))
    assert type(model[0]) is nn.Conv2d
    assert type(model[2]) is not nn.Conv2d


def test_a_copy_computes_as_before(model: nn.Sequential, use: KernelUse) -> None:
    expected = model(IMAGES)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    copies = [
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(file, weights_only=False),
    ]
    with torch.no_grad():
        model[
            0
        ].weight.zero_()  # of the copies nothing changes, and their connections are their own
    for each in copies:
        torch.testing.assert_close(each(IMAGES), expected, atol=1e-5, rtol=1e-4)


def test_other_ways_to_compute_fall_back(model: nn.Sequential, use: KernelUse) -> None:
    expected = model(IMAGES)
    close = {"atol": 1e-5, "rtol": 1e-4}
    batched = vmap(lambda image: model(image[None])[0])(IMAGES)
    torch.testing.assert_close(batched, expected, **close)
    parameters = {name: each.detach() for name, each in model.named_parameters()}
    torch.testing.assert_close(functional_call(model, parameters, (IMAGES,)), expected, **close)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(IMAGES).dtype == torch.bfloat16
    with warnings.catch_warnings(action="ignore"):
        traced = torch.jit.trace(model, IMAGES)
    torch.testing.assert_close(traced(IMAGES), expected, **close)
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(compiled(IMAGES), expected, **close)
    model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(IMAGES), expected, **close)
    model.double()
    assert model(IMAGES.double()).dtype == torch.float64


def test_a_weight_that_modules_use_in_two_ways() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, 2, padding=1))
    model[1].weight = model[0].weight
    masks = {"0.weight": torch.rand_like(model[0].weight) < 0.3}
    with torch.no_grad():
        model[0].weight.mul_(masks["0.weight"])
    images = torch.randn(3, 4, 8, 8)
    expected = model(images)
    use_kernels([model], masks, Choice("sparse"))
    assert type(model[0]) is not nn.Conv2d
    torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=1e-4)


def test_an_empty_batch(model: nn.Sequential, use: KernelUse) -> None:
    assert model(IMAGES[:0]).shape == (0, 4, 6, 5)


def test_a_mask_that_changes_in_place_is_followed(model: nn.Sequential) -> None:
    masks = masks_of(model)
    use = use_kernels([model], masks, Choice("sparse"))
    model(IMAGES)
    masks["0.weight"].copy_(torch.rand_like(model[0].weight) < 0.6)
    with torch.no_grad():
        model[0].weight.normal_().mul_(masks["0.weight"])
    outputs = model(IMAGES)
    use.stop()
    torch.testing.assert_close(model(IMAGES), outputs, atol=1e-5, rtol=1e-4)


def test_two_networks_with_the_same_masks(model: nn.Sequential) -> None:
    masks = masks_of(model)
    average = copy.deepcopy(model)
    use_kernels([model, average], masks, Choice("sparse"))
    assert type(average[0]) is type(model[0]) is not nn.Conv2d
    torch.testing.assert_close(average(IMAGES), model(IMAGES), atol=0, rtol=0)


def test_gradients_are_known_to_be_masked(model: nn.Sequential, use: KernelUse) -> None:
    weight = model[0].weight
    model(IMAGES).sum().backward()
    assert left_masked(weight, weight.grad)
    weight.grad.add_(1)
    assert not left_masked(weight, weight.grad)
    weight.grad = None
    model(IMAGES).sum().backward()
    assert left_masked(weight, weight.grad)
    weight.grad = torch.ones_like(weight)
    assert not left_masked(weight, weight.grad)


def test_a_gradient_that_comes_from_elsewhere_too_is_not_taken_for_masked(
    model: nn.Sequential, use: KernelUse
) -> None:
    weight = model[0].weight
    (model(IMAGES).sum() + (weight - 1).square().sum()).backward()
    assert weight.grad.count_nonzero() == weight.numel()
    assert not left_masked(weight, weight.grad)


def test_dense_gradients_where_they_are_wanted(model: nn.Sequential) -> None:
    masks, wanted = masks_of(model), [False]
    use = use_kernels([model], masks, Choice("sparse"), lambda: wanted[0])
    gradients = []
    for wanted[0] in (False, True):
        model.zero_grad()
        model(IMAGES).square().sum().backward()
        gradients.append([model[index].weight.grad for index in (0, 2, 3)])
    use.stop()
    model.zero_grad()
    model(IMAGES).square().sum().backward()
    for (sparse, dense), index in zip(zip(*gradients, strict=True), (0, 2, 3), strict=True):
        expected, mask = model[index].weight.grad, masks[f"{index}.weight"]
        torch.testing.assert_close(dense, expected, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(sparse, expected * mask, atol=1e-3, rtol=1e-3)


def test_a_choice_by_density_kind_and_size() -> None:
    thresholds = dict.fromkeys(("conv", "pointwise", "linear", "gru"), (0.1, 0.2, 0.3))
    choice = Choice("auto", thresholds)
    sizes = (1023, 1024, 4096)
    assert [choice.takes("conv", 1000, 5000, size) for size in sizes] == [False, True, True]
    assert not choice.takes("conv", 1600, 5000, 10**6)
    assert not choice.takes("conv", 100, 4095, 256)
    assert not choice.takes("conv", 1000, 5000, 4096, filled=0.5)
    assert not choice.takes("conv", 1700, 5000, 4096, grouped=True)
    fours = Choice("auto", {**thresholds, "conv:4": (0.3, 0.3, 0.4)})
    assert fours.takes("conv", 1700, 5000, 4096, grouped=True)
    assert not fours.takes("conv", 1700, 5000, 4096)
    assert Choice("sparse").takes("conv", 99, 100, 1)
    assert not Choice("sparse").takes("conv", 100, 100, 10**6)
    assert Choice.from_json(choice.to_json()) == choice


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(SparsityError, match='kernels are "auto", "masked" or "sparse", not "fast"'):
        Choice("fast")  # type: ignore[arg-type]
