"""Flow matching along straight lines, sampled by Euler's method."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from dstbench_ldm.diffusion import Predict
from torch import Tensor

PURE_NOISE = 1000.0
"""The time of pure noise, as the denoiser is told it; 0 is that of an example."""


class FlowMatching:
    """The denoiser predicts the velocity from the example to the noise on the line between them.

    'Flow Matching for Generative Modeling' (Lipman et al., ICLR 2023, arXiv 2210.02747) along the
    lines of 'Flow Straight and Fast' (Liu et al., ICLR 2023, arXiv 2209.03003), whose time goes the
    other way. Times of training are uniform.
    """

    def __init__(self, sampling_steps: int) -> None:
        self.sampling_steps = sampling_steps

    def times(self, count: int, rng: torch.Generator) -> Tensor:
        return PURE_NOISE * torch.rand(count, generator=rng)

    def noisy(self, examples: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        return torch.lerp(examples, noise, times.view(-1, 1, 1, 1) / PURE_NOISE)

    def target(self, examples: Tensor, noise: Tensor) -> Tensor:
        return noise - examples

    def fresh(self, count: int, rng: torch.Generator) -> Sequence[torch.Generator]:
        return ()

    def denoised(self, predict: Predict, noise: Tensor, fresh: Sequence[torch.Generator]) -> Tensor:
        examples = noise
        for step in range(self.sampling_steps):
            time = PURE_NOISE * (1 - step / self.sampling_steps)
            times = torch.full((len(noise),), time, device=noise.device)
            examples = examples - predict(examples, times) / self.sampling_steps
        return examples
