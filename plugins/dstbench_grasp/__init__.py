"""GraSP: prune before the first step what the gradient flows without."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dstbench import hookimpl
from dstbench.sparsity import GlobalSparsifier, Layer, Sparsifier

STEP = 1e-2
"""Length of the way to either side of the weights, relative to theirs, between whose ends the
gradient's difference is taken."""


class GraSP(GlobalSparsifier):
    """Keep the connections whose removal would lower the gradient flow most; never change them.

    'Picking Winning Tickets Before Training by Preserving Gradient Flow' (Wang, Zhang & Grosse,
    ICLR 2020, arXiv 2002.07376, equation 8 and Algorithm 2). Removing a connection changes gᵀg, the
    squared norm of the gradient, in proportion to −w · (H g), with the Hessian H of the first
    batch's loss at the initial weights; those with the highest −w · (H g) are removed, of all
    layers at once.

    H g is a central difference of gradients, (∇L(w + ε g) − ∇L(w − ε g)) / 2ε, which every network
    has; recurrent kernels cannot be differentiated twice. It takes three dense passes altogether.
    """

    name = "grasp"
    initial_passes = 3

    def see_first_batch(self, again: Callable[[], None]) -> None:
        """Put H g in the place of each layer's gradient g."""
        weights = [layer.weight.detach() for layer in self.layers]
        initial = [weight.clone() for weight in weights]
        directions = [layer.dense_gradient for layer in self.layers]
        length = _norm(directions)
        step = STEP * _norm(initial) / length if length else 0.0

        def gradients_after(step: float) -> list[Tensor]:
            for weight, start, direction in zip(weights, initial, directions, strict=True):
                weight.copy_(start).add_(direction, alpha=step)
            again()
            return [layer.dense_gradient for layer in self.layers]

        ahead, behind = gradients_after(step), gradients_after(-step)
        for layer, start, one, other in zip(self.layers, initial, ahead, behind, strict=True):
            layer.weight.detach().copy_(start)
            layer.dense_gradient = (one - other).div_(2 * step or 1)

    def first_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return layer.weight * layer.dense_gradient


def _norm(tensors: list[Tensor]) -> float:
    """Euclidean norm of all elements together."""
    return math.hypot(*(tensor.norm(dtype=torch.float64).item() for tensor in tensors))


@hookimpl
def dstbench_sparsifiers() -> list[type[Sparsifier]]:
    return [GraSP]
