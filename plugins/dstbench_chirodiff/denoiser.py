"""The denoiser: a bidirectional GRU over noisy points."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from dstbench.kernels import SparseGRU
from dstbench_chirodiff.recurrence import bidirectional_gru
from dstbench_chirodiff.settings import Representation

CHANNELS = 3
"""Numbers of a point: two coordinates and the pen."""

TIME_FEATURES = 8
TIME_SCALE = 4.0
"""Standard deviation of the frequencies that embed the diffusion time."""


class Denoiser(nn.Module):
    """Predicts the noise in sequences of points from all of each sequence.

    It sees of every noisy point its place, its step from the point before and its pen, and random
    Fourier features of the diffusion time (Tancik et al., *Fourier Features Let Networks Learn
    High Frequency Functions*, NeurIPS 2020).
    """

    frequencies: Tensor

    def __init__(self, representation: Representation, layers: int, units: int) -> None:
        super().__init__()
        self.representation = representation
        self.gru = nn.GRU(
            CHANNELS + 2 + TIME_FEATURES, units, layers, batch_first=True, bidirectional=True
        )
        self.join = nn.Linear(2 * units, units)
        self.predict = nn.Linear(units + TIME_FEATURES, CHANNELS)
        self.register_buffer("frequencies", TIME_SCALE * torch.randn(TIME_FEATURES // 2))

    def forward(self, points: Tensor, lengths: Tensor, times: Tensor) -> Tensor:
        """The noise in ``points`` (N, T, 3), of which the first ``lengths`` (N,) count.

        ``lengths`` is on the CPU; ``times`` (N,) are in (0, 1]. What is predicted after the end of
        a sequence means nothing.
        """
        angles = 2 * math.pi * times[:, None] * self.frequencies
        embedding = torch.cat([angles.sin(), angles.cos()], dim=-1)
        time = embedding[:, None].expand(-1, points.shape[1], -1)
        states = self._states(torch.cat([points, self._counterpart(points), time], dim=-1), lengths)
        noise: Tensor = self.predict(torch.cat([self.join(states), time], dim=-1))
        return noise

    def _counterpart(self, points: Tensor) -> Tensor:
        """The coordinates (N, T, 2) in the other representation."""
        coordinates = points[..., :2]
        if self.representation == "velocity":
            return coordinates.cumsum(dim=1)
        return coordinates.diff(dim=1, prepend=torch.zeros_like(coordinates[:, :1]))

    def _states(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        if isinstance(self.gru, SparseGRU):
            sparse = self.gru.states(inputs, lengths)
            if sparse is not None:
                return sparse
        if torch.is_grad_enabled() and not inputs.is_cuda:
            return bidirectional_gru(self.gru, inputs, lengths)
        packed = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
        states, _ = self.gru(packed)
        padded, _ = pad_packed_sequence(states, batch_first=True, total_length=inputs.shape[1])
        return padded
