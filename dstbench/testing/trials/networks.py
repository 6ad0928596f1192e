"""Small networks of every kind of layer that can be masked."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn


class Network(NamedTuple):
    """How a network is built, and what it takes."""

    build: Callable[[], nn.Module]
    """Makes the network; its weights are drawn from torch's global generator."""
    inputs: tuple[int, ...]
    """Shape of one example, without the batch dimension."""


class Recurrence(nn.Module):
    """A bidirectional GRU of two layers, and a projection."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 8, num_layers=2, batch_first=True, bidirectional=True)
        self.project = nn.Linear(16, 4)

    def forward(self, points: Tensor) -> Tensor:
        """(N, T, 4) to (N, T, 4)."""
        states, _ = self.gru(points)
        projected: Tensor = self.project(states)
        return projected


class Attention(nn.Module):
    """Self-attention with a residual connection, and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.project = nn.Linear(8, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T, 4) to (N, T, 4)."""
        tokens = self.embed(tokens)
        attended, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        projected: Tensor = self.project(self.norm(tokens + attended))
        return projected


def _convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.SiLU(),
        nn.Conv2d(8, 8, 1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(8 * 4 * 4, 4),
    )


def _single_weights() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1, bias=False), nn.Linear(1, 1), nn.Linear(1, 1)
    )


NETWORKS = {
    "convolutions": Network(_convolutions, (4, 4, 4)),
    "recurrence": Network(Recurrence, (5, 4)),
    "attention": Network(Attention, (5, 4)),
    "single weights": Network(_single_weights, (1, 1, 1)),
}
"""Networks by name; their sizes are multiples of four where there is a choice, so that groups of
weights fit."""
