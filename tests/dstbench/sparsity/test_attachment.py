"""What cannot be attached to is refused in our words."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from sparsity_methods import RandomGrowth, make
from torch import nn, optim
from torchvision.models import convnext_tiny, swin_t, vit_b_16

from dstbench.errors import SparsityError
from dstbench.sparsity import Sparsifier, sparsifiable_weights


def attach(optimizer: Any, averaged: Any = None) -> None:
    model = nn.Linear(4, 4)
    make(Sparsifier, 0.5).attach(model, optimizer(model), averaged=averaged)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (lambda m: [optim.SGD([p], 0.1) for p in m.parameters()], "one optimizer, not a list of"),
        (lambda m: {"a": optim.SGD(m.parameters(), 0.1)}, "one optimizer, not a dict of them"),
        (lambda m: object(), r"a object is no torch\.optim\.Optimizer"),
        (lambda m: m, r"a Linear is no torch\.optim\.Optimizer"),
        (lambda m: None, r"a NoneType is no torch\.optim\.Optimizer"),
    ],
)
def test_what_is_no_optimizer(optimizer: Any, message: str) -> None:
    with pytest.raises(SparsityError, match=message):
        attach(optimizer)


def test_an_averaged_copy_that_is_no_module() -> None:
    from diffusers.training_utils import EMAModel

    averaged = EMAModel(nn.Linear(4, 4).parameters())
    with pytest.raises(SparsityError, match="averaged is a EMAModel, no module: give a copy"):
        attach(lambda m: optim.SGD(m.parameters(), 0.1), averaged)


@pytest.mark.parametrize("mark", ["placements", "_fsdp_flattened"])
def test_sharded_weights(mark: str) -> None:
    class Sharded(nn.Parameter):
        pass

    setattr(Sharded, mark, ())
    model = nn.Linear(4, 4)
    model.weight = Sharded(torch.zeros(4, 4))
    with pytest.raises(SparsityError, match=r"weight is sharded over processes.*DistributedData"):
        make(Sparsifier, 0.5).attach(model, optim.SGD(model.parameters(), 0.1))


@pytest.mark.parametrize("steps", [0, -5, float("nan"), True, "100", 1.5, None])
def test_a_number_of_steps_that_is_none(steps: Any) -> None:
    with pytest.raises(SparsityError, match="total_steps must be the number of optimizer steps"):
        RandomGrowth(0.5, total_steps=steps)


@pytest.mark.parametrize("sparsity", ["0.9", None, True, float("nan"), 1, -0.1, 1 + 0j, [0.5]])
def test_a_sparsity_that_is_none(sparsity: Any) -> None:
    with pytest.raises(SparsityError, match="sparsity must be at least 0 and below 1, not"):
        Sparsifier(sparsity, total_steps=1)


def test_numbers_of_numpy_are_numbers() -> None:
    import numpy as np

    assert Sparsifier(np.float32(0.5), total_steps=np.int64(3)).sparsity == 0.5


def test_a_network_of_biases_is_refused() -> None:
    model = nn.Linear(4, 4)
    sparsifier = make(Sparsifier, 0.999)
    with pytest.raises(SparsityError, match=r"none of the 16 sparsifiable weights would be active"):
        sparsifier.attach(model, optim.SGD(model.parameters(), 0.1))
    assert sparsifier.layers == []
    pickle.dumps(sparsifier)  # attached to nothing


@pytest.mark.parametrize(
    ("make_network", "keep_dense"),
    [
        (lambda: vit_b_16(), ["class_token", "encoder.pos_embedding"]),
        (lambda: convnext_tiny(), ["*.layer_scale"]),
        (lambda: swin_t(), ["*.relative_position_bias_table"]),
    ],
    ids=["vit", "convnext", "swin"],
)
def test_all_parameters_without_a_rule_are_named_at_once(
    make_network: Any, keep_dense: list[str]
) -> None:
    with torch.device("meta"):
        model = make_network()
    with pytest.raises(SparsityError) as caught:
        sparsifiable_weights(model)
    quoted = ", ".join(f'"{pattern}"' for pattern in keep_dense)
    assert f"keep_dense = [{quoted}] leaves them dense" in str(caught.value)
    assert sparsifiable_weights(model, keep_dense)


def test_the_first_weight_is_left_dense() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4))
    optimizer = optim.SGD(model.parameters(), 0.1)
    sparsifier = make(Sparsifier, 0.5, keep_first_dense=True, distribution="uniform")
    sparsifier.attach(model, optimizer)
    assert sparsifier.densities == {"1.weight": 0.5}
    assert model[0].weight.count_nonzero() == 32
