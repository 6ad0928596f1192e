"""A narrower dense network of about as many parameters as a sparse one has active."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any

import torch

from dstbench.cell import SMALL_DENSE
from dstbench.counting.outlines import outline_on
from dstbench.errors import PluginError

if TYPE_CHECKING:
    from torch import nn

    from dstbench.contracts import Items, Model


def narrowed(model: type[Model], settings: Any, items: Items, sparsity: float) -> Any:
    """The settings of the narrower network whose number of parameters is nearest to that of the
    settings' own network less a fraction ``sparsity`` of its sparsifiable weights.

    Raises:
        PluginError: for a model that has no narrower networks, or does not tell its denoiser before
            it has data.
    """

    def parameters(size: Any) -> int:
        return sum(weight.numel() for weight in _denoiser(model, size, items).parameters())

    with torch.random.fork_rng(devices=[]):
        try:
            dense = _denoiser(model, settings, items)
        except PluginError as error:
            raise PluginError(
                f"'{SMALL_DENSE}' counts parameters before training, and {error}"
            ) from error
        sizes = model.narrower(settings)
        if not sizes:
            raise PluginError(f"'{SMALL_DENSE}': {rigid(model.name)}")
        sparsifiable = sum(weight.numel() for weight in model.sparsifiable(dense).values())
        wanted = parameters(settings) - sparsifiable + round((1 - sparsity) * sparsifiable)
        at = bisect_left(sizes, wanted, key=parameters)
        return min(sizes[max(0, at - 1) : at + 1], key=lambda size: abs(parameters(size) - wanted))


def rigid(model: str) -> str:
    """What is wrong with ``small-dense`` for a model of this name that has no narrower networks, as
    what follows its name."""
    return (
        f"it takes a narrower network, and model '{model}' has none for its settings "
        "(see Model.narrower)"
    )


def _denoiser(model: type[Model], settings: Any, items: Items) -> nn.Module:
    return outline_on("meta", model, settings, items).denoiser
