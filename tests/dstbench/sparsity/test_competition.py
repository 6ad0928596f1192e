"""Masks for which the connections of all layers compete."""

import pytest
import torch
from torch import Tensor, nn

from dstbench.errors import SparsityError
from dstbench.sparsity import GlobalSparsifier, Layer


class ByGradient(GlobalSparsifier):
    name = "by-gradient"

    def first_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return layer.dense_gradient.abs()


@pytest.mark.parametrize(
    ("sparsity", "expected"),
    [
        (0.5, [[[0, 0], [0, 0]], [[1, 1], [1, 1]]]),  # a layer may lose all that it has
        (0.25, [[[1, 1], [0, 0]], [[1, 1], [1, 1]]]),  # of equal ones the first
        (0.0, [[[1, 1], [1, 1]], [[1, 1], [1, 1]]]),
    ],
)
def test_the_highest_of_all_layers_by_hand(sparsity: float, expected: list) -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))

    def backward() -> None:
        (model[0].weight.sum() + 2 * model[1].weight.sum()).backward()

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier = ByGradient(sparsity, total_steps=1)
    sparsifier.attach(model, optimizer, backward=backward)
    assert [layer.mask.int().tolist() for layer in sparsifier.layers] == expected


def test_before_there_is_a_batch_counts_are_known_at_no_sparsity_but_zero() -> None:
    shapes = {"weight": (4, 3)}
    assert ByGradient(0.0, total_steps=1).layer_counts(shapes) == {"weight": 12}
    with pytest.raises(SparsityError, match="first training batch: by-gradient cannot tell before"):
        ByGradient(0.5, total_steps=1).layer_counts(shapes)


def test_there_is_no_other_distribution() -> None:
    with pytest.raises(SparsityError, match="Input should be 'global'"):
        ByGradient(0.5, total_steps=1, distribution="erk")
