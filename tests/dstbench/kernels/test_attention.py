"""Attention of diffusers computes the same, in one pass."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor
from hypothesis import given, settings
from hypothesis import strategies as st
from masked import by_threads, masks_of
from torch import Tensor, nn

from dstbench.kernels import Choice, KernelUse, attention, use_kernels
from dstbench.kernels.attention import SparseAttention

IMAGES = torch.randn(5, 16, 4, 6, generator=torch.Generator().manual_seed(1))
SETTINGS = {"heads": 2, "dim_head": 8, "norm_num_groups": 4, "residual_connection": True}


def block(**changes: Any) -> Attention:
    torch.manual_seed(0)
    made = Attention(16, **SETTINGS | {"bias": True, "eps": 1e-5} | changes)
    for weight in made.parameters():
        nn.init.normal_(weight, std=0.4)
    return made


def sparse(model: nn.Module, masks: dict[str, Tensor] | None = None) -> KernelUse:
    return use_kernels([model], masks or masks_of(model, 0.4), Choice("sparse"))


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is computed in one pass."""
    found = []
    original = attention._Attention.apply

    def note(*args: Any) -> Tensor:
        found.append(args[-1])
        return original(*args)

    monkeypatch.setattr(attention._Attention, "apply", note)
    return found


def results(model: nn.Module, images: Tensor = IMAGES) -> list[Tensor]:
    """Outputs, and gradients of images and of weights."""
    images = images.clone().requires_grad_()
    outputs = model(images)
    return [outputs, *torch.autograd.grad(outputs.square().sum(), [images, *model.parameters()])]


def masked(model: nn.Module, masks: dict[str, Tensor], images: Tensor = IMAGES) -> list[Tensor]:
    """The same of the dense model in float64, without gradients of inactive weights."""
    found = results(copy.deepcopy(model).double(), images.double())
    names = [name for name, _ in model.named_parameters()]
    kept = [each * masks.get(name, 1) for name, each in zip(names, found[2:], strict=True)]
    return [each.float() for each in (*found[:2], *kept)]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    """Outputs, and gradients in units of the largest: those of keys' biases are zero but for
    rounding, whatever the others are."""
    torch.testing.assert_close(found[0], expected[0], atol=1e-4, rtol=1e-4)
    largest = max(1, *(each.abs().max().item() for each in expected[1:]))
    for one, other in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(one / largest, other / largest, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"heads": 1},
        {"heads": 4, "dim_head": 3},
        {"heads": 3, "dim_head": 7},
        {"norm_num_groups": None},
        {"norm_num_groups": 16, "eps": 1e-3},
        {"residual_connection": False},
        {"bias": False, "out_bias": False},
        {"rescale_output_factor": 2.0},
        {"upcast_softmax": True},
    ],
    ids=str,
)
def test_attention_is_the_same(changes: dict[str, Any], fused: list[Any]) -> None:
    model = block(**changes)
    masks = masks_of(model, 0.4)
    expected = masked(model, masks)
    use = sparse(model, masks)
    assert_same(results(model), expected)
    assert len(fused) == 1
    assert isinstance(model, Attention)
    use.stop()
    assert type(model) is Attention


@settings(max_examples=25, deadline=None)
@given(
    n=st.sampled_from([1, 2, 15, 16, 17, 33]),
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    heads=st.sampled_from([1, 2, 4]),
    group=st.sampled_from([1, 2, 4]),
    density=st.sampled_from([0, 0.05, 0.5, 0.95]),
)
def test_any_size_is_the_same(
    n: int, rows: int, columns: int, heads: int, group: int, density: float
) -> None:
    model = block(heads=heads, dim_head=16 // heads)
    masks = masks_of(model, density, group)
    images = torch.randn(n, 16, rows, columns)
    expected = masked(model, masks, images)
    use = sparse(model, masks)
    assert_same(results(model, images), expected)
    use.stop()


def test_products_far_from_zero_stay_finite(fused: list[Any]) -> None:
    model = block()
    with torch.no_grad():
        model.to_q.weight *= 40
        model.to_k.weight *= 40
    masks = masks_of(model, 0.4)
    expected = copy.deepcopy(model).double()(IMAGES.double()).float()
    sparse(model, masks)
    torch.testing.assert_close(model(IMAGES), expected, atol=1e-2, rtol=1e-2)
    assert len(fused) == 1


def test_nothing_is_kept_where_there_is_no_gradient(fused: list[Any]) -> None:
    model = block()
    sparse(model)
    expected = model(IMAGES)
    with torch.no_grad():
        assert torch.equal(model(IMAGES), expected)
    with torch.inference_mode():
        assert torch.equal(model(IMAGES), expected)
    assert [each.is_kept for each in fused] == [True, False, False]


def test_results_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dstbench.kernels.functions._OF_ONE_THREAD", 0)
    model = block()
    sparse(model)
    first, *others = by_threads(lambda: results(model, IMAGES.repeat(7, 1, 1, 1)))
    for other in others:
        assert all(map(torch.equal, first, other))


def test_frozen_weights_get_no_gradient(fused: list[Any]) -> None:
    model = block()
    model.to_q.weight.requires_grad_(False)
    model.to_v.bias.requires_grad_(False)
    model.group_norm.requires_grad_(False)
    masks = masks_of(model, 0.4)
    plain = copy.deepcopy(model)
    sparse(model, masks)
    for each in (model, plain):
        each(IMAGES).square().sum().backward()
    for (name, one), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        if other.grad is None:
            assert one.grad is None
        else:
            expected = other.grad * masks.get(name, 1)
            torch.testing.assert_close(one.grad, expected, atol=1e-3, rtol=1e-3)
    assert len(fused) == 1


def test_gradients_can_be_differentiated(fused: list[Any]) -> None:
    model = block()
    masks = masks_of(model, 0.4)
    images = IMAGES.clone().requires_grad_()

    def penalised() -> list[Tensor]:
        outputs = model(images)
        (slope,) = torch.autograd.grad(outputs.square().mean(), images, create_graph=True)
        weights = dict(model.named_parameters())
        found = torch.autograd.grad(
            slope.square().sum(), list(weights.values()), materialize_grads=True
        )
        kept = [each * masks.get(name, 1) for name, each in zip(weights, found, strict=True)]
        return [slope, *kept]

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        expected = penalised()
    sparse(model, masks)
    for one, other in zip(penalised(), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)
    assert len(fused) == 1


@pytest.mark.parametrize("n", [5, 40])
def test_the_gradient_of_all_weights_is_computed_where_it_is_wanted(
    n: int, fused: list[Any]
) -> None:
    model = block(heads=3, dim_head=7)
    masks = masks_of(model, 0.4)
    images = torch.randn(n, 16, 4, 6)
    expected = masked(model, {}, images)
    use_kernels([model], masks, Choice("sparse"), lambda: True)
    assert_same(results(model, images), expected)
    assert len(fused) == 1


class Spatial(nn.Module):
    """A normalization by what else is given."""

    def forward(self, images: Tensor, temb: Tensor) -> Tensor:
        return images * temb


def with_spatial_norm(model: Attention) -> Attention:
    model.spatial_norm = Spatial()
    return model


def unlike(model: Attention) -> Attention:
    model.set_processor(AttnProcessor())
    return model


@pytest.mark.parametrize(
    "make",
    [
        lambda: block(dropout=0.5),
        lambda: block(qk_norm="layer_norm"),
        lambda: unlike(block()),
        lambda: with_spatial_norm(block()),
    ],
    ids=["dropout", "normalized queries", "processor", "spatial normalization"],
)
def test_other_attention_computes_as_before(
    make: Callable[[], Attention], fused: list[Any]
) -> None:
    model = make()
    masks = masks_of(model, 0.4)
    times = torch.full((5, 1, 1, 1), 2.0)
    torch.manual_seed(3)
    expected = model(IMAGES, temb=times)
    sparse(model, masks)
    torch.manual_seed(3)
    torch.testing.assert_close(model(IMAGES, temb=times), expected, atol=1e-4, rtol=1e-4)
    assert not fused


def test_what_else_may_be_given_is_computed_as_before(fused: list[Any]) -> None:
    model = block()
    masks = masks_of(model, 0.4)
    tokens = IMAGES.flatten(2).mT
    mask = torch.zeros(5, 1, 24)
    mask[..., 3:] = -1e4
    given = [
        ((tokens,), {}),
        ((IMAGES, tokens), {}),
        ((IMAGES,), {"attention_mask": mask}),
    ]
    expected = [model(*args, **others) for args, others in given]
    sparse(model, masks)
    for (args, others), each in zip(given, expected, strict=True):
        torch.testing.assert_close(model(*args, **others), each, atol=1e-4, rtol=1e-4)
    assert not fused


def test_large_images_are_computed_as_before(
    fused: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = block()
    masks = masks_of(model, 0.4)
    expected = model(IMAGES)
    sparse(model, masks)
    monkeypatch.setattr(attention, "_LARGEST", 24 * 16)
    torch.testing.assert_close(model(IMAGES), expected, atol=1e-4, rtol=1e-4)
    assert not fused
    monkeypatch.setattr(attention, "_LARGEST", 24 * 16 + 1)
    torch.testing.assert_close(model(IMAGES), expected, atol=1e-4, rtol=1e-4)
    assert len(fused) == 1


def test_attention_with_a_dense_projection_computes_as_before(fused: list[Any]) -> None:
    model = block()
    masks = masks_of(model, 0.4)
    del masks["to_v.weight"]
    expected = model(IMAGES)
    sparse(model, masks)
    torch.testing.assert_close(model(IMAGES), expected, atol=1e-4, rtol=1e-4)
    assert not fused


def watch(model: Attention, seen: list[Any]) -> None:
    model.to_q.register_forward_hook(lambda *args: seen.append(args[-1]))


def watch_backward(model: Attention, seen: list[Any]) -> None:
    model.to_v.register_full_backward_hook(lambda *args: seen.append(args[-1]))


def replace(model: Attention, seen: list[Any]) -> None:
    forward = model.to_out[0].forward
    model.to_out[0].forward = lambda tokens: seen.append(tokens) or forward(tokens)


@pytest.mark.parametrize("watching", [watch, watch_backward, replace])
def test_whoever_watches_a_part_sees_it(
    watching: Callable[[Attention, list[Any]], None], fused: list[Any]
) -> None:
    model, seen = block(), []
    sparse(model)
    watching(model, seen)
    model(IMAGES).sum().backward()
    assert seen
    assert not fused


def test_other_numbers_copies_and_exports_compute_as_before(fused: list[Any]) -> None:
    model = block().eval()
    sparse(model)
    expected = model(IMAGES)
    fused.clear()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(IMAGES).float(), expected, atol=1, rtol=0.1)
    exported = torch.export.export(model, (IMAGES,)).module()
    torch.testing.assert_close(exported(IMAGES), expected, atol=1e-4, rtol=1e-4)
    copied = copy.deepcopy(model)
    assert type(copied) is SparseAttention
    torch.testing.assert_close(copied(IMAGES), expected, atol=1e-4, rtol=1e-4)
    found = copied.double()(IMAGES.double()).float()
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    assert not fused


def test_images_of_other_channels_are_refused_by_torch() -> None:
    model = block()
    sparse(model)
    with pytest.raises(RuntimeError):
        model(IMAGES[:, :8])
