"""The sparse-training engine: masks, layer distributions, schedules, drop-and-grow.

It works on any ``nn.Module`` and any torch optimizer, outside the harness too; the training loop
stays as it is:

>>> import torch
>>> from dstbench.sparsity import DynamicSparsifier, random_scores
>>> class MagRan(DynamicSparsifier):
...     def growth_scores(self, layer, rng):
...         return random_scores(layer, rng)
>>> model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
>>> optimizer = torch.optim.AdamW(model.parameters())
>>> sparsifier = MagRan(0.9, total_steps=1000, exploration_frequency=10).attach(model, optimizer)
>>> for _ in range(20):
...     model(torch.randn(4, 8)).square().mean().backward()
...     optimizer.step()
...     optimizer.zero_grad()
>>> sparsifier.active, sparsifier.sparsifiable, sparsifier.topology_updates
(29, 288, 2)
"""

from dstbench.sparsity.competition import GlobalSparsifier
from dstbench.sparsity.distribution import Distribution, active_counts, densities
from dstbench.sparsity.drop_and_grow import DynamicSparsifier
from dstbench.sparsity.layers import Layer, sparsifiable_weights
from dstbench.sparsity.schedules import Schedule
from dstbench.sparsity.scores import random_scores
from dstbench.sparsity.selection import largest
from dstbench.sparsity.sparsifier import Sparsifier

__all__ = [
    "Distribution",
    "DynamicSparsifier",
    "GlobalSparsifier",
    "Layer",
    "Schedule",
    "Sparsifier",
    "active_counts",
    "densities",
    "largest",
    "random_scores",
    "sparsifiable_weights",
]
