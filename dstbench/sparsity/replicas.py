"""Replicas of a network in several processes, which have to decide alike."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import distributed, nn

from dstbench.sparsity.layers import Layer


class Replicas:
    """The processes that train the same network under the same sparsifier.

    ``identity`` is what they have in common (method, settings, seed); where a process group is
    initialised and all its processes have the same identity and weights of the same names and
    shapes, they are replicas, and what each has seen of the data is averaged before a decision.
    A sparsifier is attached in all of these processes, or in none.
    """

    def __init__(self, identity: Any, weights: Mapping[str, nn.Parameter]) -> None:
        self.count = 1
        if not (distributed.is_available() and distributed.is_initialized()):
            return
        shapes = [(name, tuple(weight.shape)) for name, weight in weights.items()]
        mine = hashlib.sha256(repr((identity, shapes)).encode()).hexdigest()
        all_of_them: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(all_of_them, mine)
        if all(other == mine for other in all_of_them):
            self.count = len(all_of_them)

    def average_dense_gradients(self, layers: Sequence[Layer]) -> None:
        """Replace the dense gradient of each layer by its mean over the replicas.

        A replica in which a layer has none, because its batch did not use the layer, counts as
        zero. A layer that has none in any replica stays without.
        """
        if self.count == 1:
            return
        device = layers[0].weight.device
        having = torch.tensor([float(each.has_dense_gradient) for each in layers], device=device)
        distributed.all_reduce(having)  # all are to average the same layers, or they wait for ever
        for layer, replicas in zip(layers, having.tolist(), strict=True):
            if replicas and not layer.has_dense_gradient:
                layer.dense_gradient = torch.zeros_like(layer.weight)
            if replicas:
                distributed.all_reduce(layer.dense_gradient)
                layer.dense_gradient.div_(self.count)

    def all(self, true_here: bool, device: torch.device) -> bool:
        """Whether it is true in all replicas."""
        if self.count == 1:
            return true_here
        votes = torch.tensor(float(true_here), device=device)
        distributed.all_reduce(votes)
        return bool(votes == self.count)
