"""First masks that are chosen by the gradient of one batch, and counts that follow from it."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from sparsity_methods import (
    GradientGrowth,
    RandomGrowth,
    assert_same_parameters,
    assert_zero_outside_masks,
    make,
    mlp,
    train,
)
from torch import Tensor, nn

from dstbench.errors import SparsityError
from dstbench.sparsity import Layer, Sparsifier, largest


class ByGradient(Sparsifier):
    """The largest gradients of all layers together; how many in which layer is up to them."""

    needs_initial_gradient = True

    def first_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return layer.dense_gradient.abs()

    def layer_counts(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        counts = super().layer_counts(shapes)
        if self.sparsity == 0:
            return counts
        scores = [self.first_scores(layer, self._rng).flatten() for layer in self.layers]
        together = torch.cat(scores)
        best = largest(together, torch.ones_like(together, dtype=torch.bool), sum(counts.values()))
        parts = best.split([len(each) for each in scores])
        return {
            layer.name: int(part.count_nonzero())
            for layer, part in zip(self.layers, parts, strict=True)
        }


def linear(rows: list[list[float]]) -> nn.Linear:
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows))
    return layer


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)


def with_gradients(model: nn.Module, *gradients: list[list[float]]) -> Callable[[], None]:
    """A backward pass that accumulates just these gradients, one for each parameter."""

    def backward() -> None:
        pairs = zip(model.parameters(), gradients, strict=True)
        torch.stack(
            [(weight * torch.tensor(rows)).sum() for weight, rows in pairs]
        ).sum().backward()

    return backward


def masks(sparsifier: Sparsifier) -> list[list[list[int]]]:
    return [layer.mask.int().tolist() for layer in sparsifier.layers]


def test_the_first_mask_follows_the_gradient() -> None:
    model = nn.Sequential(linear([[1, 2], [3, 4]]), linear([[5, 6, 7, 8]]))
    sparsifier = ByGradient(0.5, total_steps=1)
    backward = with_gradients(model, [[0, -9], [1, 2]], [[3, -4, 5, 0]])
    sparsifier.attach(model, sgd(model), backward=backward)
    # the four largest of eight: −9 | −4, 5 and 3
    assert masks(sparsifier) == [[[0, 1], [0, 0]], [[1, 1, 1, 0]]]
    assert sparsifier.densities == {"0.weight": 0.25, "1.weight": 0.75}
    assert model[0].weight.tolist() == [[0, 2], [0, 0]]
    assert model[1].weight.tolist() == [[5, 6, 7, 0]]
    assert not any(layer.has_dense_gradient for layer in sparsifier.layers)
    assert [parameter.grad for parameter in model.parameters()] == [None, None]


def test_a_layer_may_lose_all_its_connections_or_none() -> None:
    model = nn.Sequential(linear([[1, 2]]), linear([[3], [4]]))
    sparsifier = ByGradient(0.5, total_steps=1)
    backward = with_gradients(model, [[1, 2]], [[3], [4]])
    sparsifier.attach(model, sgd(model), backward=backward)
    assert masks(sparsifier) == [[[0, 0]], [[1], [1]]]
    backward()
    assert model[0].weight.grad.tolist() == [[0, 0]]
    assert model[1].weight.grad.tolist() == [[3], [4]]


def test_gradients_from_before_do_not_count() -> None:
    model = linear([[1, 2, 3, 4]])
    with_gradients(model, [[100, 0, 0, 0]])()
    sparsifier = ByGradient(0.5, total_steps=1)
    sparsifier.attach(model, sgd(model), backward=with_gradients(model, [[0, 0, 1, 1]]))
    assert masks(sparsifier) == [[[0, 0, 1, 1]]]


class ByChange(ByGradient):
    """What the gradient becomes where all weights are one more."""

    initial_passes = 2

    def see_first_batch(self, again: Callable[[], None]) -> None:
        before = {layer.name: layer.dense_gradient for layer in self.layers}
        for sign in (1, -1):
            for layer in self.layers:
                layer.weight.detach().add_(sign)
            if sign == 1:
                again()
        for layer in self.layers:
            layer.dense_gradient = layer.dense_gradient - before[layer.name]


def test_a_method_may_ask_for_the_gradient_at_other_weights() -> None:
    model = linear([[1, 2, 3, 4]])

    def backward() -> None:
        (model.weight.square() * torch.tensor([4.0, 3, 2, 1])).sum().backward()

    sparsifier = ByChange(0.5, total_steps=1).attach(model, sgd(model), backward=backward)
    # 2 w a is 8, 12, 12, 8 at first; it changes by 2 a, which is 8, 6, 4, 2
    assert masks(sparsifier) == [[[1, 1, 0, 0]]]
    assert model.weight.tolist() == [[1, 2, 0, 0]]
    assert model.weight.grad is None


def test_a_weight_that_the_batch_does_not_reach_has_a_gradient_of_zero() -> None:
    model = nn.Sequential(linear([[1, 2]]), linear([[3, 4]]))
    sparsifier = ByGradient(0.5, total_steps=1)
    backward = with_gradients(model[1], [[1, 1]])
    sparsifier.attach(model, sgd(model), backward=backward)
    assert masks(sparsifier) == [[[0, 0]], [[1, 1]]]


def test_without_a_backward_pass_it_is_refused_and_can_be_attached_later() -> None:
    model = linear([[1, 2]])
    sparsifier = ByGradient(0.5, total_steps=1)
    with pytest.raises(SparsityError, match=r"ByGradient chooses .* give attach\(backward=...\)"):
        sparsifier.attach(model, sgd(model))
    assert model.weight.tolist() == [[1, 2]]
    sparsifier.attach(model, sgd(model), backward=with_gradients(model, [[1, 2]]))
    assert masks(sparsifier) == [[[0, 1]]]


@pytest.mark.parametrize(
    ("kind", "sparsity"),
    [(ByGradient, 0), (Sparsifier, 0.5), (RandomGrowth, 0.5), (GradientGrowth, 0.5)],
)
def test_no_backward_pass_is_made_in_vain(kind: type[Sparsifier], sparsity: float) -> None:
    def backward() -> None:
        pytest.fail("nobody needs this gradient")

    model = mlp()
    make(kind, sparsity).attach(model, sgd(model), backward=backward)
    make(kind, sparsity).attach(other := mlp(), sgd(other))
    assert_same_parameters(model, other)


def attached(*gradients: list[list[float]], sparsity: float = 0.5) -> tuple[Any, Any, Any]:
    model = nn.Sequential(linear([[1, 2], [3, 4]]), linear([[5, 6], [7, 8]]))
    optimizer = sgd(model)
    sparsifier = ByGradient(sparsity, total_steps=1)
    sparsifier.attach(model, optimizer, backward=with_gradients(model, *gradients))
    return model, optimizer, sparsifier


def test_a_saved_state_brings_its_own_layer_counts() -> None:
    """As if another machine had rounded the gradients otherwise."""
    one = attached([[9, 9], [9, 9]], [[0, 0], [0, 0]])  # all of the first layer
    other = attached([[0, 0], [1, 0]], [[9, 9], [9, 0]])  # most of the second
    train(one[0], one[1], range(3), shape=(2,))
    for part, its_twin in zip(other, one, strict=True):
        part.load_state_dict(copy.deepcopy(its_twin.state_dict()))
    assert other[2].densities == {"0.weight": 1, "1.weight": 0}
    train(one[0], one[1], range(3, 6), shape=(2,))
    train(other[0], other[1], range(3, 6), shape=(2,))
    assert_same_parameters(one[0], other[0])
    assert_zero_outside_masks(other[2], other[1])
    assert other[0][0].weight.count_nonzero() == 4


def test_a_state_of_another_sparsity_is_refused() -> None:
    gradients = [[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]
    saved = attached(*gradients, sparsity=0.25)[2].state_dict()
    with pytest.raises(SparsityError, match="not of this network at this sparsity"):
        attached(*gradients)[2].load_state_dict(saved)
