"""Residual blocks of diffusers compute the same, in fewer passes."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from masked import by_threads, masks_of
from torch import Tensor, nn

from dstbench.kernels import Choice, KernelUse, modules, use_kernels
from dstbench.kernels.residual import SparseResnetBlock2D

IMAGES = torch.randn(5, 8, 6, 6, generator=torch.Generator().manual_seed(1))
TIMES = torch.randn(5, 12, generator=torch.Generator().manual_seed(2))


def block(**settings: Any) -> ResnetBlock2D:
    torch.manual_seed(0)
    made = ResnetBlock2D(
        **{"in_channels": 8, "out_channels": 4, "temb_channels": 12, "groups": 2} | settings
    )
    for weight in made.parameters():
        nn.init.normal_(weight, std=0.5)
    return made


def sparse(model: nn.Module) -> KernelUse:
    return use_kernels([model], masks_of(model, 0.4), Choice("sparse"))


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> list[nn.GroupNorm]:
    """The normalizations that are computed with the convolution after them, as they are."""
    found = []
    original = modules.normalized_convolution

    def note(images: Tensor, norm: nn.GroupNorm, *args: Any) -> Tensor:
        found.append(norm)
        return original(images, norm, *args)

    monkeypatch.setattr(modules, "normalized_convolution", note)
    return found


def results(model: nn.Module, *inputs: Tensor | None) -> list[Tensor]:
    """Outputs, and gradients of images and of weights."""
    images = IMAGES.clone().requires_grad_()
    outputs = model(images, *inputs)
    return [outputs, *torch.autograd.grad(outputs.square().sum(), [images, *model.parameters()])]


def masked(found: list[Tensor], model: nn.Module, masks: dict[str, Tensor]) -> list[Tensor]:
    """The same without gradients of inactive weights."""
    names = [name for name, _ in model.named_parameters()]
    kept = [each * masks.get(name, 1) for name, each in zip(names, found[2:], strict=True)]
    return [*found[:2], *kept]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"out_channels": 8},
        {"output_scale_factor": 2.0},
        {"skip_time_act": True},
        {"dropout": 0.0, "eps": 1e-3},
    ],
    ids=str,
)
def test_a_block_is_the_same(settings: dict[str, Any], fused: list[nn.GroupNorm]) -> None:
    model = block(**settings)
    masks = masks_of(model, 0.4)
    expected = masked(results(model, TIMES), model, masks)
    use = use_kernels([model], masks, Choice("sparse"))
    found = results(model, TIMES)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)
    assert fused == [model.norm1, model.norm2]
    assert isinstance(model, ResnetBlock2D)
    use.stop()
    assert type(model) is ResnetBlock2D


def test_results_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dstbench.kernels.functions._OF_ONE_THREAD", 0)
    model = block()
    sparse(model)
    first, *others = by_threads(lambda: results(model, TIMES))
    for other in others:
        assert all(map(torch.equal, first, other))


def test_blocks_without_times_are_taken(fused: list[nn.GroupNorm]) -> None:
    model = block(temb_channels=None)
    masks = masks_of(model, 0.4)
    expected = masked(results(model, None), model, masks)
    use_kernels([model], masks, Choice("sparse"))
    for one, other in zip(results(model, None), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)
    assert len(fused) == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"up": True},
        {"down": True},
        {"time_embedding_norm": "scale_shift"},
        {"non_linearity": "mish"},
        {"dropout": 0.5},
    ],
    ids=str,
)
def test_other_blocks_compute_as_before(
    settings: dict[str, Any], fused: list[nn.GroupNorm]
) -> None:
    model = block(**settings)
    masks = masks_of(model, 0.4)
    torch.manual_seed(3)
    expected = model(IMAGES, TIMES)
    use_kernels([model], masks, Choice("sparse"))
    torch.manual_seed(3)
    torch.testing.assert_close(model(IMAGES, TIMES), expected, atol=1e-4, rtol=1e-4)
    assert not fused


def test_dropout_that_is_off_does_not_matter(fused: list[nn.GroupNorm]) -> None:
    model = block(dropout=0.5).eval()
    sparse(model)
    model(IMAGES, TIMES)
    assert len(fused) == 2


def test_half_a_block_is_taken(fused: list[nn.GroupNorm]) -> None:
    model = block()
    masks = masks_of(model, 0.4)
    masks["conv1.weight"].fill_(True)  # which dense kernels compute faster
    expected = model(IMAGES, TIMES)
    use_kernels([model], masks, Choice("sparse"))
    torch.testing.assert_close(model(IMAGES, TIMES), expected, atol=1e-4, rtol=1e-4)
    assert fused == [model.norm2]


def watch(model: nn.Module, seen: list[Any]) -> None:
    model.norm1.register_forward_hook(lambda *args: seen.append(args[-1]))


def watch_before(model: nn.Module, seen: list[Any]) -> None:
    model.conv2.register_forward_pre_hook(lambda *args: seen.append(args[-1]))


def watch_backward(model: nn.Module, seen: list[Any]) -> None:
    model.nonlinearity.register_full_backward_hook(lambda *args: seen.append(args[-1]))


def replace(model: nn.Module, seen: list[Any]) -> None:
    forward = model.conv1.forward
    model.conv1.forward = lambda images: seen.append(images) or forward(images)


@pytest.mark.parametrize("watching", [watch, watch_before, watch_backward, replace])
def test_whoever_watches_a_part_sees_it(
    watching: Callable[[nn.Module, list[Any]], None], fused: list[nn.GroupNorm]
) -> None:
    model, seen = block(), []
    sparse(model)
    watching(model, seen)
    model(IMAGES, TIMES).sum().backward()
    assert seen
    assert not fused


def test_hooks_of_all_modules_see_the_parts(fused: list[nn.GroupNorm]) -> None:
    model, seen = block(), []
    sparse(model)
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(module))
    try:
        model(IMAGES, TIMES)
    finally:
        handle.remove()
    assert model.norm1 in seen
    assert not fused


def test_other_numbers_and_exports_compute_as_before(fused: list[nn.GroupNorm]) -> None:
    model = block().eval()
    sparse(model)
    expected = model(IMAGES, TIMES)
    fused.clear()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(IMAGES, TIMES).float(), expected, atol=1, rtol=0.1)
    exported = torch.export.export(model, (IMAGES, TIMES)).module()
    torch.testing.assert_close(exported(IMAGES, TIMES), expected, atol=1e-4, rtol=1e-4)
    double = copy.deepcopy(model).double()
    found = double(IMAGES.double(), TIMES.double())
    torch.testing.assert_close(found.float(), expected, atol=1e-3, rtol=1e-3)
    assert not fused


def test_a_copy_computes_as_before(fused: list[nn.GroupNorm]) -> None:
    model = block()
    sparse(model)
    expected = model(IMAGES, TIMES)
    fused.clear()
    copied = copy.deepcopy(model)
    torch.testing.assert_close(copied(IMAGES, TIMES), expected, atol=1e-4, rtol=1e-4)
    assert not fused


def test_a_block_whose_convolutions_are_dense_stays() -> None:
    model = block()
    masks = {name: mask for name, mask in masks_of(model, 0.4).items() if "time" in name}
    use_kernels([model], masks, Choice("sparse"))
    assert type(model) is ResnetBlock2D


def test_gradients_can_be_differentiated(fused: list[nn.GroupNorm]) -> None:
    model = block()
    masks = masks_of(model, 0.4)
    images, times = IMAGES.clone().requires_grad_(), TIMES.clone().requires_grad_()

    def penalised() -> list[Tensor]:
        slopes = torch.autograd.grad(
            model(images, times).square().mean(), [images, times], create_graph=True
        )
        penalty = sum(each.square().sum() for each in slopes)
        weights = dict(model.named_parameters())
        of_weights = torch.autograd.grad(penalty, list(weights.values()), materialize_grads=True)
        return [
            *slopes,
            *(each * masks.get(name, 1) for name, each in zip(weights, of_weights, strict=True)),
        ]

    expected = penalised()
    use_kernels([model], masks, Choice("sparse"))
    assert type(model) is SparseResnetBlock2D
    for one, other in zip(penalised(), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)
    assert len(fused) == 2


@pytest.mark.parametrize("times", [TIMES[:1], TIMES[:1].expand(5, 12)], ids=["one", "expanded"])
def test_times_may_be_shared_by_images(times: Tensor, fused: list[nn.GroupNorm]) -> None:
    model = block()
    masks = masks_of(model, 0.4)
    expected = model(IMAGES, times)
    use_kernels([model], masks, Choice("sparse"))
    torch.testing.assert_close(model(IMAGES, times), expected, atol=1e-4, rtol=1e-4)
    assert model.norm2 in fused


def test_images_of_other_channels_are_refused_by_torch() -> None:
    model = block()
    sparse(model)
    with pytest.raises(RuntimeError, match="channels"):
        model(IMAGES[:, :6], TIMES)
    with pytest.raises(RuntimeError, match="channels"):
        model.conv1(IMAGES[:, :6])
    with pytest.raises(RuntimeError, match="multiplied"):
        model.time_emb_proj(TIMES[:, :6])
