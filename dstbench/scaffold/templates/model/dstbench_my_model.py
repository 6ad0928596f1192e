"""my-model, a diffusion model for dstbench."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from dstbench import hookimpl
from dstbench.contracts import Items, Model, Outline, PluginSettings, Split
from dstbench.errors import DivergedError
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

FREQUENCIES = 8


class Denoiser(nn.Module):
    """CHANGE THIS: the network that is trained and sparsified.

    Four convolutions, which are told the time by a linear layer. The weights of convolution,
    linear, recurrent and attention layers may be masked; for others, see Model.sparsifiable.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, width, 3, padding=1)
        self.time = nn.Linear(2 * FREQUENCIES, width)
        self.inner = nn.Conv2d(width, width, 3, padding=1)
        self.wide = nn.Conv2d(width, width, 3, padding=2, dilation=2)
        self.leave = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, images: Tensor, times: Tensor) -> Tensor:
        """Velocities (N, C, H, W) of images (N, C, H, W) at times (N,): 0 is data, 1 is noise."""
        octaves = torch.pi / 2 * 2 ** torch.arange(FREQUENCIES, device=times.device)
        angles = times[:, None] * octaves
        embedded = self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
        hidden = F.silu(self.enter(images) + embedded[:, :, None, None])
        hidden = hidden + F.silu(self.inner(hidden))
        hidden = hidden + F.silu(self.wide(hidden))
        velocities: Tensor = self.leave(hidden)
        return velocities


class MyModel(Model["MyModel.Settings"]):
    """A few convolutions, trained by flow matching (Lipman et al. 2023, arXiv 2210.02747).

    CHANGE THIS: say what yours is and where it comes from. `dstbench plugins` prints the first
    line.
    """

    name = "my-model"
    accepts = "images"  # the kind of dataset it trains on

    class Settings(PluginSettings):
        # CHANGE THIS: what a benchmark may set under [models.my-model].
        width: int = Field(32, ge=1, description="channels of the hidden layers")
        sampling_steps: int = Field(20, ge=1, description="denoiser calls for one sample")

    # CHANGE THIS: settings that sample alone reads, of which trained weights can have others.
    sampling_settings = ("sampling_steps",)

    # CHANGE THIS: settings with which `dstbench check` takes seconds.
    trial_settings: ClassVar[Mapping[str, Any]] = {"width": 8, "sampling_steps": 2}

    @classmethod
    def outline(cls, settings: Settings, items: Items) -> Outline:
        # CHANGE THIS: the denoiser for images such as these, the inputs of one call on one image,
        # and how many calls a sample takes.
        denoiser = Denoiser(items.shape[0], settings.width)
        inputs = torch.zeros(1, *items.shape), torch.zeros(1)
        return Outline(denoiser, inputs, settings.sampling_steps)

    def batch(self, split: Split, indices: Tensor) -> Tensor:
        """Images (N, C, H, W) in [-1, 1]."""
        items = self.data.split(split)
        images = torch.stack([items[index] for index in indices.tolist()])
        return images.to(self.workspace.device) / 127.5 - 1

    def loss(self, denoiser: nn.Module, batch: Tensor, rng: torch.Generator) -> Tensor:
        # CHANGE THIS. All that is random comes from rng, on the CPU, so that every sparsifier is
        # trained with the same noise.
        times = torch.rand(len(batch), generator=rng).to(batch)
        noise = torch.randn(batch.shape, generator=rng).to(batch)
        noisy = torch.lerp(batch, noise, times.view(-1, 1, 1, 1))
        return F.mse_loss(denoiser(noisy, times), noise - batch)

    def sample(
        self, denoiser: nn.Module, count: int, batch_size: int, rng: torch.Generator
    ) -> Tensor:
        # CHANGE THIS, but draw all noise before the first batch: the batch size must not matter.
        noise = torch.randn(count, *self.data.train[0].shape, generator=rng)
        return torch.cat([self._images(denoiser, part) for part in torch.split(noise, batch_size)])

    def _images(self, denoiser: nn.Module, noise: Tensor) -> Tensor:
        """uint8 images of noise, by Euler's method."""
        images, steps = noise.to(self.workspace.device), self.settings.sampling_steps
        for step in range(steps, 0, -1):
            times = images.new_full((len(images),), step / steps)
            images = images - denoiser(images, times) / steps
        if not images.isfinite().all():
            raise DivergedError("the denoiser's output is not finite")
        return (images.clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8).cpu()


@hookimpl
def dstbench_models() -> list[type[Model]]:
    return [MyModel]
