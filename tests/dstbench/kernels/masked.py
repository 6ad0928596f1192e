"""Networks with masks, for tests of kernels."""

from collections.abc import Callable

import torch
from torch import nn


def masks_of(model: nn.Module, density: float = 0.3, group: int = 1) -> dict[str, torch.Tensor]:
    """Mask all weights of a model, of which so many neighbouring outputs share their mask; the
    masks by parameter name."""
    masks = {}
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            few = torch.rand(len(weight) // group, *weight.shape[1:]) < density
            masks[name] = few.repeat_interleave(group, dim=0)
            with torch.no_grad():
                weight.mul_(masks[name])
    return masks


def by_threads(results: Callable[[], list[torch.Tensor]]) -> list[list[torch.Tensor]]:
    """Results with one, two and three threads."""
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(results())
    finally:
        torch.set_num_threads(before)
    return found
