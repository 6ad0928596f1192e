"""Memory formats, dtypes, gradients and networks of every kind."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sparsity_methods import (
    GradientGrowth,
    RandomGrowth,
    assert_same_parameters,
    assert_zero_outside_masks,
    convnet,
    make,
    mlp,
    state_tensors,
    train,
)
from torch import Tensor, nn

from dstbench.sparsity import Sparsifier

METHODS = (Sparsifier, RandomGrowth, GradientGrowth)


def check_training(
    kind: type[Sparsifier], model: nn.Module, loss: Callable[[nn.Module], Tensor], **settings: Any
) -> Any:
    """Seven steps with clipping; weights and moments are zero outside the masks all the way."""
    optimizer = torch.optim.AdamW(model.parameters(), 0.01, weight_decay=0.1)
    sparsifier = make(kind, 0.6, **settings).attach(model, optimizer)
    first = {layer.name: (layer.weight.clone(), layer.mask.clone()) for layer in sparsifier.layers}
    for _ in range(7):
        value = loss(model)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        assert value.isfinite()
        assert_zero_outside_masks(sparsifier, optimizer)
    for layer in sparsifier.layers:
        weight, mask = first[layer.name]
        assert not torch.equal(layer.weight, weight), f"{layer.name} was not trained"
        changes = kind is not Sparsifier and layer.density < 1
        assert torch.equal(layer.mask, mask) != changes, layer.name
        assert layer.mask.stride() == layer.weight.stride()
    return sparsifier


@pytest.mark.parametrize("kind", METHODS)
def test_channels_last(kind: type[Sparsifier]) -> None:
    model = convnet().to(memory_format=torch.channels_last)
    inputs = torch.randn(2, 3, 6, 6).to(memory_format=torch.channels_last)
    check_training(kind, model, lambda m: m(inputs).square().mean())
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not model[0].weight.is_contiguous()


def test_gradient_growth_chooses_the_same_connections_in_either_memory_format() -> None:
    masks = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        model = convnet().to(memory_format=memory_format)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        sparsifier = make(GradientGrowth, 0.5, every=1).attach(model, optimizer)
        with torch.no_grad():  # random masks follow the memory order; give both the same one
            for layer in sparsifier.layers:
                numbers = torch.arange(layer.mask.numel()).reshape(layer.mask.shape)
                layer.mask.copy_(numbers * 7 % layer.mask.numel() < layer.active)
                layer.weight.copy_((numbers - 50) * 0.01 * layer.mask)
                assert layer.mask.count_nonzero() == layer.active
        inputs = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))
        model(inputs.to(memory_format=memory_format)).square().mean().backward()
        optimizer.step()
        masks.append([layer.mask for layer in sparsifier.layers])
    assert all(map(torch.equal, *masks))


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_parameters_of_another_dtype(kind: type[Sparsifier], dtype: torch.dtype) -> None:
    model = mlp().to(dtype)
    inputs = torch.randn(4, 6, dtype=dtype)
    check_training(kind, model, lambda m: (m(inputs) - 1).square().mean())
    assert model[0].weight.dtype == dtype


@pytest.mark.parametrize("kind", METHODS)
def test_bf16_autocast(kind: type[Sparsifier]) -> None:
    inputs = torch.randn(2, 3, 6, 6)

    def loss(model: nn.Module) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            output = model(inputs)
        assert output.dtype == torch.bfloat16
        return (output.float() - 1).square().mean()

    sparsifier = check_training(kind, convnet(), loss)
    assert sparsifier.layers[0].weight.dtype == torch.float32


@pytest.mark.parametrize("kind", METHODS)
def test_expanded_and_transposed_gradients(kind: type[Sparsifier]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.Linear(8, 6, bias=False))
    coefficients = torch.randn(6, 8)

    def loss(model: nn.Module) -> Tensor:
        expanded = model[0].weight.sum()  # its gradient is one number, expanded
        transposed = (model[1].weight.T * coefficients.T).sum()
        return expanded + transposed + 0.1 * model(torch.ones(1, 6)).sum()

    check_training(kind, model, loss)


@pytest.mark.parametrize("kind", METHODS)
def test_a_transposed_weight(kind: type[Sparsifier]) -> None:
    torch.manual_seed(0)
    model = nn.Linear(6, 8)
    model.weight = nn.Parameter(torch.randn(6, 8).T)
    inputs = torch.randn(4, 6)
    check_training(kind, model, lambda m: m(inputs).square().mean())


@pytest.mark.parametrize("kind", METHODS)
def test_gradients_that_are_zeroed_instead_of_removed(kind: type[Sparsifier]) -> None:
    models = mlp(), mlp()
    for model, set_to_none in zip(models, (True, False), strict=True):
        optimizer = torch.optim.AdamW(model.parameters(), 0.01)
        sparsifier = make(kind, 0.6).attach(model, optimizer)
        for step in range(8):
            inputs = torch.randn(4, 6, generator=torch.Generator().manual_seed(step))
            model(inputs).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=set_to_none)
            assert_zero_outside_masks(sparsifier, optimizer)
    assert_same_parameters(*models)


@pytest.mark.parametrize("kind", METHODS)
def test_a_closure(kind: type[Sparsifier]) -> None:
    models = mlp(), mlp()
    optimizers = [torch.optim.AdamW(model.parameters(), 0.01) for model in models]
    for model, optimizer in zip(models, optimizers, strict=True):
        make(kind, 0.6).attach(model, optimizer)
    train(models[0], optimizers[0], range(8))
    for step in range(8):

        def closure(step: int = step) -> Tensor:
            rng = torch.Generator().manual_seed(step)
            inputs, targets = torch.randn(4, 6, generator=rng), torch.randn(4, 4, generator=rng)
            optimizers[1].zero_grad()
            loss = (models[1](inputs) - targets).square().mean()
            loss.backward()
            return loss

        optimizers[1].step(closure)
    assert_same_parameters(*models)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru = nn.GRU(3, 5, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(10, 3)

    def forward(self, points: Tensor) -> Tensor:
        output: Tensor = self.head(self.gru(points)[0])
        return output


@pytest.mark.parametrize("kind", METHODS)
def test_a_gru_uses_its_new_connections(kind: type[Sparsifier]) -> None:
    model = Recurrent()
    points = torch.randn(2, 7, 3)
    sparsifier = check_training(kind, model, lambda m: (m(points) - 1).square().mean())
    assert len(sparsifier.sparse_layers) == 9
    fresh = Recurrent()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(model(points), fresh(points))
    layer = next(each for each in sparsifier.layers if each.name == "gru.weight_hh_l1_reverse")
    before = model(points)
    with torch.no_grad():
        layer.weight[tuple(layer.mask.nonzero()[0])] += 1
    assert not torch.equal(model(points), before)


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("kdim", [None, 5])
def test_attention(kind: type[Sparsifier], kdim: int | None) -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.attention = nn.MultiheadAttention(
                8, 2, kdim=kdim, vdim=kdim, add_bias_kv=True, batch_first=True
            )

        def forward(self, query: Tensor, key: Tensor) -> Tensor:
            output: Tensor = self.attention(query, key, key)[0]
            return output

    query, key = torch.randn(2, 3, 8), torch.randn(2, 4, kdim or 8)
    sparsifier = check_training(kind, Attention(), lambda m: m(query, key).sum())
    assert len(sparsifier.layers) == (2 if kdim is None else 4)


@pytest.mark.parametrize("kind", METHODS)
def test_sparse_embedding_gradients_and_the_optimizers_other_parameters(
    kind: type[Sparsifier],
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 4, sparse=True), nn.Linear(4, 6))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparsifier = make(kind, 0.5).attach(model, optimizer)
    for _ in range(7):
        model(torch.tensor([1, 4, 4])).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert_zero_outside_masks(sparsifier, optimizer)
    assert sparsifier.sparsifiable == 24
    assert sparsifier.skipped_updates == 0


@pytest.mark.parametrize("kind", METHODS)
def test_a_frozen_layer_is_never_touched(kind: type[Sparsifier]) -> None:
    model = mlp()
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    inputs = torch.randn(4, 6)
    check_training(kind, model, lambda m: m(inputs).square().mean())
    assert torch.equal(model[0].weight, before)


@pytest.mark.parametrize("kind", METHODS)
def test_a_network_of_one_active_weight(kind: type[Sparsifier]) -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    sparsifier = make(kind, 1 - 1 / 160, every=1).attach(model, optimizer)
    assert sparsifier.active == 1
    train(model, optimizer, range(5))
    assert_zero_outside_masks(sparsifier, optimizer)


@pytest.mark.parametrize("kind", METHODS)
def test_a_compiled_network(kind: type[Sparsifier]) -> None:
    plain, other = mlp(), mlp()
    compiled = torch.compile(other, backend="aot_eager")
    optimizers = [torch.optim.AdamW(model.parameters(), 0.01) for model in (plain, other)]
    sparsifier = make(kind, 0.6).attach(plain, optimizers[0])
    compiled_sparsifier = make(kind, 0.6).attach(compiled, optimizers[1])
    train(plain, optimizers[0], range(7))
    train(compiled, optimizers[1], range(7))
    assert_zero_outside_masks(compiled_sparsifier, optimizers[1])
    for one, same in zip(sparsifier.layers, compiled_sparsifier.layers, strict=True):
        assert torch.equal(one.mask, same.mask)
        torch.testing.assert_close(one.weight, same.weight)


def test_the_checks_above_see_moments() -> None:
    model = convnet()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    make(RandomGrowth, 0.5).attach(model, optimizer)
    train(model, optimizer, range(1), shape=(3, 4, 4))
    for name in ("0.weight", "3.weight"):
        moments = state_tensors(optimizer, model.get_parameter(name))
        assert moments.keys() == {"exp_avg", "exp_avg_sq"}
