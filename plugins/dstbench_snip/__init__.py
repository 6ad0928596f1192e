"""SNIP: prune by connection sensitivity before the first step."""

import torch
from torch import Tensor

from dstbench import hookimpl
from dstbench.sparsity import GlobalSparsifier, Layer, Sparsifier


class SNIP(GlobalSparsifier):
    """Keep the connections that the loss of one batch is most sensitive to; never change them.

    'SNIP: Single-shot Network Pruning based on Connection Sensitivity' (Lee, Ajanthan & Torr, ICLR
    2019, arXiv 1810.02340, Algorithm 1). The sensitivity of a connection is |g · w| (equations 4
    and 5, whose common factor changes no order): the gradient of the loss times the weight, before
    the first step. All connections compete, so that layers' densities follow from the data, and a
    layer may lose every connection it has.
    """

    name = "snip"

    def first_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return (layer.dense_gradient * layer.weight).abs()


@hookimpl
def dstbench_sparsifiers() -> list[type[Sparsifier]]:
    return [SNIP]
