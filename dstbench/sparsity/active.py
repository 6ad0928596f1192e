"""What is active of a network's layers."""

from __future__ import annotations

from dstbench.sparsity.layers import Layer
from dstbench.sparsity.shapes import WeightShape


class ActiveLayers:
    """Layers, and how many of their weights are active."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []

    @property
    def sparse_layers(self) -> list[Layer]:
        """The layers that have inactive weights."""
        return [layer for layer in self.layers if layer.density < 1]

    @property
    def shapes(self) -> dict[str, WeightShape]:
        """Shape of each weight by parameter name."""
        return {layer.name: layer.shape for layer in self.layers}

    @property
    def densities(self) -> dict[str, float]:
        """Fraction of active weights by parameter name."""
        return {layer.name: layer.density for layer in self.layers}

    @property
    def active(self) -> int:
        """Number of active sparsifiable weights."""
        return sum(layer.active for layer in self.layers)

    @property
    def sparsifiable(self) -> int:
        """Number of sparsifiable weights, active or not."""
        return sum(layer.mask.numel() for layer in self.layers)

    @property
    def rounding(self) -> int:
        """Number of weights by which :attr:`active` may miss what a sparsity asks for, because
        groups of output channels that share one mask are whole: half a group."""
        return max((layer.group for layer in self.layers), default=1) // 2
