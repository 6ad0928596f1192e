"""Masks with a structure, prune rates of one's own: what a stranger's method may override."""

import copy
from collections.abc import Mapping, Sequence
from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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


class InGroups(Sparsifier):
    """One of each four inputs; layers whose inputs do not fill groups stay dense."""

    exact_sparsity = False

    def layer_counts(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        return {n: prod(shape) if shape[1] % 4 else prod(shape) // 4 for n, shape in shapes.items()}

    def select_mask(self, layer: Layer, kept: Tensor, scores: Tensor) -> Tensor:
        mask = kept.clone()
        for group in range(0, layer.weight.shape[1], 4):
            for row in range(layer.weight.shape[0]):
                here = torch.zeros_like(kept)
                here[row, group : group + 4] = True
                missing = 1 - int((kept & here).count_nonzero())
                mask |= largest(scores, here & ~kept, missing)
        return mask


class ByWeightInGroups(InGroups):
    def first_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return layer.weight


class GrowingInGroups(InGroups, GradientGrowth):
    pass


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.0)


def test_the_first_mask_has_the_structure_by_hand() -> None:
    model = nn.Sequential(nn.Linear(8, 2, bias=False), nn.Linear(2, 3, bias=False))
    rows = [[1.0, 2, 9, 3, 7, 7, 5, 6], [4, 1, 1, 1, -4, -3, -2, -1]]
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor(rows))
    sparsifier = ByWeightInGroups(0.75, total_steps=1).attach(model, sgd(model))
    assert sparsifier.layers[0].mask.int().tolist() == [
        [0, 0, 1, 0, 1, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 0, 1],
    ]
    assert sparsifier.densities == {"0.weight": 0.25, "1.weight": 1.0}


def test_an_update_keeps_the_structure_by_hand() -> None:
    model = nn.Linear(8, 2, bias=False)
    sparsifier = make(GrowingInGroups, 0.75, every=1, prune_rate=0.5, prune_schedule="constant")
    optimizer = sgd(model)
    sparsifier.attach(model, optimizer)
    (layer,) = sparsifier.layers
    with torch.no_grad():
        weight = torch.tensor([[9.0, 0, 0, 0, 1, 0, 0, 0], [0, 2, 0, 0, 0, 0, 0, 8]])
        layer.weight.copy_(weight)
        layer.mask.copy_(weight != 0)
    gradient = torch.tensor([[0.0, 9, 9, 9, 1, 2, 3, 2], [1, 2, 1, 1, 9, 9, 9, 9]])
    (layer.weight * gradient).sum().backward()
    optimizer.step()
    # drops 1 and 2; grows 3 in the group of 1, and 2 itself again in its own
    assert layer.mask.int().tolist() == [[1, 0, 0, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, 0, 0, 1]]
    assert layer.weight.tolist() == [[9, 0, 0, 0, 0, 0, 0, 0], [0, 2, 0, 0, 0, 0, 0, 8]]
    assert sparsifier.connections_changed == 1


@settings(max_examples=15, deadline=None)
@given(prune_rate=st.floats(0, 1), seed=st.integers(0, 100))
def test_groups_are_always_whole(prune_rate: float, seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    sparsifier = make(GrowingInGroups, 0.75, every=1, prune_rate=prune_rate, seed=seed)
    sparsifier.attach(model, optimizer)
    for step in range(4):
        dense, grouped = sparsifier.layers
        assert dense.mask.all()
        assert (grouped.mask.reshape(-1, 4).sum(1) == 1).all()
        assert_zero_outside_masks(sparsifier, optimizer, moments=step > 0)
        train(model, optimizer, range(step, step + 1))


class Halving(RandomGrowth):
    """Half of the layer, then a quarter, and so on."""

    def prune_rate_at(self, step: int) -> float:
        return float(0.5 ** (step / self.settings.exploration_frequency))


class WithoutRegrowth(Halving):
    """Grows what was dropped last, so that what has changed is what was dropped."""

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return ~layer.mask


def test_a_prune_rate_of_ones_own() -> None:
    model = nn.Linear(16, 16, bias=False)
    optimizer = sgd(model)
    sparsifier = make(WithoutRegrowth, 0.5, every=2).attach(model, optimizer)
    changed: list[int] = []
    sparsifier.on_topology_update = lambda _, count: changed.append(count)
    for _ in range(6):
        optimizer.step()
    assert changed == [64, 32, 16]


def test_a_prune_rate_that_is_no_fraction_is_refused() -> None:
    class Doubling(RandomGrowth):
        def prune_rate_at(self, step: int) -> float:
            return 2.0**step

    model = nn.Linear(4, 4)
    make(Doubling, 0.5, every=1).attach(model, optimizer := sgd(model))
    with pytest.raises(SparsityError, match=r"^Doubling.prune_rate_at\(1\) is 2.0; a prune rate"):
        optimizer.step()


def test_the_prune_rate_is_the_schedules_by_default() -> None:
    sparsifier = make(RandomGrowth, 0.5, total_steps=8, prune_rate=0.4)
    assert sparsifier.prune_rate_at(3) == pytest.approx(0.2)  # cosine, half of 0.75 × 8 steps


class KeepingTheLargest(GradientGrowth):
    """Keeps one connection, or one group, whatever the prune rate; what is grown begins at 7."""

    def choose_kept(self, layer: Layer, scores: Tensor, count: int, prune_rate: float) -> Tensor:
        return largest(scores, layer.mask, 1)

    def grown_values(self, layer: Layer) -> Tensor:
        return torch.full_like(layer.weight, 7)


@pytest.mark.parametrize(
    ("structure", "expected"),
    [
        # 4 is kept; grown are the gradients 9, 8, and 3, which had the value 2
        ("unstructured", [[2, 0, 7], [0, 4, 7]]),
        # a column is kept, as 1 + 4 is more than 2 + 0; that of the gradients 8 and 9 is grown
        ("channels:2", [[0, 1, 7], [0, 4, 7]]),
    ],
)
def test_what_is_kept_and_what_grown_connections_begin_with(
    structure: str, expected: list[list[float]]
) -> None:
    model = nn.Linear(3, 2, bias=False)
    optimizer = sgd(model)
    sparsifier = make(KeepingTheLargest, 1 / 3, every=1, structure=structure)
    (layer,) = sparsifier.attach(model, optimizer).layers
    with torch.no_grad():
        layer.mask.copy_(torch.tensor([[1, 1, 0], [1, 1, 0]]))
        model.weight.copy_(torch.tensor([[2.0, 1, 0], [0, 4, 0]]))
    (model.weight * torch.tensor([[3.0, 0, 9], [2, 0, 8]])).sum().backward()
    assert sparsifier.optimizer_settings(layer)["lr"] == 0.0
    optimizer.step()
    assert model.weight.tolist() == expected


@pytest.mark.parametrize("kind", [InGroups, GrowingInGroups, Halving, KeepingTheLargest])
def test_they_resume_bit_for_bit(kind: type[Sparsifier]) -> None:
    def fresh() -> list:
        model = nn.Sequential(mlp(), nn.Linear(4, 4))
        optimizer = torch.optim.AdamW(model.parameters(), 0.01)
        return [model, optimizer, make(kind, 0.75, total_steps=20).attach(model, optimizer)]

    whole, half, rest = fresh(), fresh(), fresh()
    train(whole[0], whole[1], range(12))
    train(half[0], half[1], range(7))
    for part, saved in zip(rest, half, strict=True):
        part.load_state_dict(copy.deepcopy(saved.state_dict()))
    train(rest[0], rest[1], range(7, 12))
    assert_same_parameters(whole[0], rest[0])


def test_dense_gradient_steps_may_be_declared_by_any_sparsifier() -> None:
    assert Sparsifier(0.5, total_steps=9).dense_gradient_steps(9) == 0
