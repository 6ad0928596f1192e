"""Networks with masks, for tests of kernels."""

import torch
from torch import nn


def masks_of(model: nn.Module, density: float = 0.3) -> dict[str, torch.Tensor]:
    """Mask all weights of a model; the masks by parameter name."""
    masks = {}
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            masks[name] = torch.rand_like(weight) < density
            with torch.no_grad():
                weight.mul_(masks[name])
    return masks
