import dstbench_snip
import pytest
import torch
from dstbench_snip import SNIP
from torch import nn

from dstbench.errors import SparsityError


def test_sensitivities_of_all_layers_compete() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -2.0], [3.0, 4.0]]))
        model[1].weight.copy_(torch.tensor([[-5.0, 6.0]]))

    def backward() -> None:
        (model[0].weight * torch.tensor([[9.0, 1.0], [-1.0, 0.0]])).sum().backward()
        (model[1].weight * torch.tensor([[1.0, 0.5]])).sum().backward()

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    snip = SNIP(0.5, total_steps=1).attach(model, optimizer, backward=backward)
    # |g · w| is 9, 2, 3, 0 and 5, 3: of the two that are equal the first is kept
    first, second = snip.layers
    assert first.mask.int().tolist() == [[1, 0], [1, 0]]
    assert second.mask.int().tolist() == [[1, 0]]
    assert model[0].weight.tolist() == [[1, 0], [3, 0]]


def test_counts_are_not_known_before_there_is_a_batch() -> None:
    with pytest.raises(SparsityError, match="follows from the first training batch: snip cannot"):
        SNIP(0.5, total_steps=1).layer_counts({"weight": (4, 4)})


def test_it_registers_itself() -> None:
    assert dstbench_snip.dstbench_sparsifiers() == [SNIP]
    assert SNIP.name == "snip"
