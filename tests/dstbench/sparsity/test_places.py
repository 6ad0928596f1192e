"""Weights that are replaced in the network after attaching are noticed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from sparsity_methods import RandomGrowth, make, mlp, train
from torch import nn, optim
from torch.nn.utils import parametrizations, prune

from dstbench.errors import SparsityError
from dstbench.sparsity import Sparsifier


def assign(model: nn.Sequential) -> None:
    model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()}, assign=True)


def replace_last(model: nn.Sequential) -> None:
    model[3].weight = nn.Parameter(torch.ones(4, 16))


def put_another_layer(model: nn.Sequential) -> None:
    model[3] = nn.Linear(16, 4)


def flatten(model: nn.Sequential) -> None:
    """As the first version of FSDP does."""
    weight = model[3].weight.detach().clone()
    del model[3].weight
    model.flat = nn.Parameter(weight.flatten())
    model[3].weight = model.flat.view(4, 16)


REPLACE = [assign, replace_last, put_another_layer, flatten]


@pytest.mark.parametrize("kind", [Sparsifier, RandomGrowth])
@pytest.mark.parametrize("anew", [True, False], ids=["another optimizer", "the same optimizer"])
@pytest.mark.parametrize("replace", REPLACE)
def test_a_replaced_weight_ends_the_training(
    replace: Callable[[nn.Sequential], None], anew: bool, kind: type[Sparsifier]
) -> None:
    model = mlp()
    optimizer: optim.Optimizer = optim.AdamW(model.parameters())
    sparsifier = make(kind, 0.5).attach(model, optimizer)
    train(model, optimizer, range(2))
    replace(model)
    if anew:
        optimizer = optim.SGD(model.parameters(), 0.1)
    with pytest.raises(SparsityError, match=r"[03]\.weight, which is masked, is no longer in the"):
        train(model, optimizer, range(2, 3))
    with pytest.raises(SparsityError, match="is no longer in the network"):
        sparsifier.verify()
    sparsifier.detach()
    sparsifier.verify()  # of the weights that it had


@pytest.mark.parametrize(
    "move",
    [
        lambda layer: prune.identity(layer, "weight"),
        lambda layer: parametrizations.spectral_norm(layer),
        lambda layer: layer.to(torch.float64).to(torch.float32),
    ],
    ids=["prune", "spectral_norm", "to"],
)
def test_a_weight_that_is_still_trained_stays_masked(move: Callable[[nn.Module], object]) -> None:
    model = mlp()
    optimizer = optim.AdamW(model.parameters())
    sparsifier = make(RandomGrowth, 0.5).attach(model, optimizer)
    move(model[3])
    train(model, optimizer, range(7))
    sparsifier.verify()
    assert sparsifier.topology_updates == 2
    assert (model[3].weight == 0)[~sparsifier.layers[1].mask].all()


def test_weights_of_another_network_than_is_named() -> None:
    model, other = mlp(), nn.Linear(2, 2)
    optimizer = optim.AdamW(model.parameters())
    sparsifier = make(Sparsifier, 0.5)
    sparsifier.attach(other, optimizer, weights={"its": model[0].weight})
    train(model, optimizer, range(2))
    assert sparsifier.step == 2
