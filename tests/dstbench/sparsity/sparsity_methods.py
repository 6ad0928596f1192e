"""What the tests of the engine share: two methods of growth, and a small network to train."""

import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dstbench.sparsity import DynamicSparsifier, Layer, Sparsifier, random_scores


class RandomGrowth(DynamicSparsifier):
    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return random_scores(layer, rng)


class GradientGrowth(DynamicSparsifier):
    """Grows by dense gradient, and remembers the gradients it was shown."""

    needs_dense_gradient: ClassVar[bool] = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.shown: dict[str, Tensor] = {}

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        self.shown[layer.name] = layer.dense_gradient.clone()
        return layer.dense_gradient.abs_()


def make(
    kind: type[Sparsifier],
    sparsity: float,
    *,
    total_steps: int = 1000,
    every: int = 3,
    **settings: Any,
) -> Any:
    """A sparsifier that, if it is a dynamic one, updates the topology after ``every`` steps."""
    if issubclass(kind, DynamicSparsifier):
        settings["exploration_frequency"] = every
    return kind(sparsity, total_steps=total_steps, **settings)


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 4))


def convnet(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 3, 1)
    )


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: range,
    shape: tuple[int, ...] = (6,),
    after_step: Callable[[], None] = lambda: None,
) -> None:
    """Steps towards random targets; the data of a step depend on its number alone."""
    for step in steps:
        data = torch.Generator().manual_seed(step)
        inputs = torch.randn(4, *shape, generator=data)
        output = model(inputs)
        target = torch.randn(output.shape, generator=data)
        (output - target).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        after_step()


def state_tensors(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> dict[str, Tensor]:
    """The optimizer's moments of a weight.

    Adamax's ``exp_inf`` and Rprop's ``step_size`` are none: both are bounded away from zero.
    """
    return {
        key: value
        for key, value in optimizer.state[weight].items()
        if isinstance(value, Tensor)
        and value.shape == weight.shape
        and key not in ("exp_inf", "step_size")
    }


def assert_zero_outside_masks(
    sparsifier: Sparsifier, optimizer: torch.optim.Optimizer, *, moments: bool = True
) -> None:
    for layer in sparsifier.sparse_layers:
        assert layer.mask.count_nonzero() == layer.active
        assert layer.weight[~layer.mask].count_nonzero() == 0, layer.name
        if moments:
            for key, value in state_tensors(optimizer, layer.weight).items():
                assert value[~layer.mask].count_nonzero() == 0, (layer.name, key)


def assert_same_parameters(one: nn.Module, other: nn.Module) -> None:
    for (name, mine), theirs in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs), name


def all_tensors(value: Any) -> list[Tensor]:
    """Every tensor in a nested state."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return list(itertools.chain.from_iterable(map(all_tensors, value.values())))
    if isinstance(value, list | tuple):
        return list(itertools.chain.from_iterable(map(all_tensors, value)))
    return []
