"""Optimizers as masks see them: the state they keep of a weight, the elements they mix."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

_MIXING = {"LBFGS", "Muon"}


def mixes_elements(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer's step of one element of a weight depends on other elements, so that
    weights are moved whose gradient is zero."""
    return type(optimizer).__name__ in _MIXING


def state_of(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> Iterator[Tensor]:
    """The tensors in the weight's shape that the optimizer keeps of it, such as Adam's moments."""
    for value in optimizer.state.get(weight, {}).values():
        if isinstance(value, Tensor) and value.shape == weight.shape:
            yield value


def start_second_moments_at_mean(
    optimizer: torch.optim.Optimizer, weight: nn.Parameter, grown: Tensor, kept: int
) -> None:
    """Give ``grown`` elements (bool, in the weight's shape) the mean second moment of the ``kept``
    active ones; those of all others are zero."""
    state = optimizer.state.get(weight, {})
    for key in ("exp_avg_sq", "square_avg"):
        if key in state and kept:
            state[key].masked_fill_(grown, state[key].sum() / kept)
