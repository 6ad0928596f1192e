"""Noise: how it is added to points, and taken away from them again."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

FIRST_VARIANCE, LAST_VARIANCE = 1e-4, 2e-2
"""β of the first and the last of 1000 noise steps (Ho et al., NeurIPS 2020)."""


class Diffusion:
    """Gaussian diffusion with linearly growing variances.

    *Denoising Diffusion Probabilistic Models* (Ho et al., NeurIPS 2020, arXiv 2006.11239); noise
    steps are counted from 1. With T steps in place of 1000 the variances are scaled by 1000 / T,
    so that the last step leaves as little of the points.
    """

    def __init__(self, steps: int) -> None:
        scale = 1000 / steps
        betas = torch.linspace(
            scale * FIRST_VARIANCE, scale * LAST_VARIANCE, steps, dtype=torch.float64
        )
        self.steps = steps
        self.signal = torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas).cumprod(0)])
        """ᾱ by noise step (steps + 1,): the share of the points' variance that is left."""

    def noisy(self, points: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
        """``points`` (N, T, 3) after noise steps ``steps`` (N,); equation 4."""
        signal = self.signal[steps].to(points.dtype).view(-1, 1, 1)
        kept, added = signal.sqrt().to(points.device), (1 - signal).sqrt().to(points.device)
        return kept * points + added * noise

    def levels(self, count: int, *, leading: bool = False) -> Iterator[tuple[int, int]]:
        """``count`` steps (from, to), equally long, from the last noise step to none; ``leading``
        ones begin so much earlier that the last of them goes from the first noise step to none."""
        stride = self.steps // count
        first = self.steps - stride + 1 if leading else self.steps
        return ((step, max(0, step - stride)) for step in range(first, 0, -stride))

    def denoised(
        self, points: Tensor, noise: Tensor, step: int, to: int, strength: float = 1
    ) -> tuple[Tensor, float]:
        """Mean and standard deviation of the points at noise step ``to``, given those at ``step``
        and the noise in them.

        Equations 7 and 11, with the steps in between taken at once (Nichol & Dhariwal, *Improved
        Denoising Diffusion Probabilistic Models*, ICML 2021, equation 19), and the standard
        deviation times ``strength``.
        """
        now, then = float(self.signal[step]), float(self.signal[to])
        kept = now / then
        mean = (points - (1 - kept) / (1 - now) ** 0.5 * noise) / kept**0.5
        return mean, strength * self._deviation(now, then)

    def denoised_by_ddim(
        self, points: Tensor, noise: Tensor, step: int, to: int, eta: float
    ) -> tuple[Tensor, float]:
        """The same by DDIM, whose mean keeps the noise that is not added anew; η = 1 is DDPM.

        *Denoising Diffusion Implicit Models* (Song et al., ICLR 2021, arXiv 2010.02502), equations
        12 and 16.
        """
        now, then = float(self.signal[step]), float(self.signal[to])
        deviation = eta * self._deviation(now, then)
        clean = (points - (1 - now) ** 0.5 * noise) / now**0.5
        return then**0.5 * clean + (1 - then - deviation**2) ** 0.5 * noise, deviation

    @staticmethod
    def _deviation(now: float, then: float) -> float:
        deviation: float = ((1 - then) / (1 - now) * (1 - now / then)) ** 0.5
        return deviation
