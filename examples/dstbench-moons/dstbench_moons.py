"""A toy dataset, pictures of the moon, and a toy model that learns them in seconds."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dstbench import hookimpl
from dstbench.contracts import (
    Data,
    Dataset,
    Items,
    Model,
    Outline,
    PluginSettings,
    Split,
    Workspace,
)
from dstbench.errors import DivergedError


class Moons(Dataset["Moons.Settings"]):
    """Grey pictures of a moon, from crescent to full, of any size and tilt; made up on the spot."""

    name = "moons"
    kind = "images"

    class Settings(PluginSettings):
        size: int = Field(8, ge=4, description="pixels on a side")
        train: int = Field(1024, ge=1, description="images to train with")
        validation: int = Field(128, ge=0, description="images held out")

    trial_settings: ClassVar[Mapping[str, Any]] = {"train": 64, "validation": 16}

    def load(self, workspace: Workspace) -> Data:
        count = self.settings.train + self.settings.validation
        angle, phase, radius = torch.rand(3, count, generator=torch.Generator().manual_seed(0))
        images = draw(
            2 * math.pi * angle, 0.2 + 0.8 * phase, 0.5 + 0.5 * radius, self.settings.size
        )
        train = self.settings.train
        return Data.of_images(
            # Clones, because a view would take all images along to another process.
            train=[image.clone() for image in images[:train]],
            validation=[image.clone() for image in images[train:]],
        )

    def outline(self) -> Items:
        return Items((1, self.settings.size, self.settings.size))


def draw(angle: Tensor, phase: Tensor, radius: Tensor, size: int) -> Tensor:
    """Moons as uint8 images (N, 1, size, size), with edges a pixel soft.

    Each is given by the angle (radians) under which the sun shines, its phase (0: new, 1: full) and
    its radius (1: as wide as the picture), all of shape (N,).
    """
    angle, phase, radius = (each.view(-1, 1, 1, 1) for each in (angle, phase, radius))
    pixels = (torch.arange(size) + 0.5) * 2 / size - 1
    across = pixels * angle.cos() + pixels[:, None] * angle.sin()
    along = pixels[:, None] * angle.cos() - pixels * angle.sin()
    edge = (radius.square() - along.square()).clamp(min=0).sqrt()
    inside = radius - torch.hypot(across, along)
    lit = across - edge * (math.pi * phase).cos()
    brightness = (torch.minimum(inside, lit) * size / 2 + 0.5).clamp(0, 1)
    return (255 * brightness).round().to(torch.uint8)


class Denoiser(nn.Module):
    """Three linear layers; they see a noisy image's pixels, and its time as four cosines."""

    frequencies: Tensor

    def __init__(self, pixels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(pixels + 4, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, pixels),
        )
        self.register_buffer("frequencies", math.pi * torch.arange(4), persistent=False)

    def forward(self, images: Tensor, times: Tensor) -> Tensor:
        """Velocities (N, C, H, W) of images (N, C, H, W) at times (N,): 0 is data, 1 is noise."""
        waves = (times[:, None] * self.frequencies).cos()
        velocities: Tensor = self.layers(torch.cat([images.flatten(1), waves], dim=1))
        return velocities.view_as(images)


class TinyFlow(Model["TinyFlow.Settings"]):
    """A small MLP on pixels, trained by flow matching.

    'Flow Matching for Generative Modeling' (Lipman et al., ICLR 2023, arXiv 2210.02747), with
    straight paths from data to noise.
    """

    name = "tiny-flow"
    accepts = "images"

    class Settings(PluginSettings):
        width: int = Field(128, ge=1, description="units of each hidden layer")
        sampling_steps: int = Field(20, ge=1, description="denoiser calls for one sample")

    sampling_settings = ("sampling_steps",)
    trial_settings: ClassVar[Mapping[str, Any]] = {"width": 16, "sampling_steps": 2}

    @classmethod
    def outline(cls, settings: Settings, items: Items) -> Outline:
        """The MLP, called on one image and its time."""
        denoiser = Denoiser(math.prod(items.shape), settings.width)
        inputs = torch.zeros(1, *items.shape), torch.zeros(1)
        return Outline(denoiser, inputs, settings.sampling_steps)

    def batch(self, split: Split, indices: Tensor) -> Tensor:
        """Images (N, C, H, W) in [-1, 1]."""
        items = self.data.split(split)
        images = torch.stack([items[index] for index in indices.tolist()])
        return images.to(self.workspace.device) / 127.5 - 1

    def loss(self, denoiser: nn.Module, batch: Tensor, rng: torch.Generator) -> Tensor:
        """Mean squared error of the velocity from data to noise."""
        times = torch.rand(len(batch), generator=rng).to(batch)
        noise = torch.randn(batch.shape, generator=rng).to(batch)
        noisy = torch.lerp(batch, noise, times.view(-1, 1, 1, 1))
        return F.mse_loss(denoiser(noisy, times), noise - batch)

    def sample(
        self, denoiser: nn.Module, count: int, batch_size: int, rng: torch.Generator
    ) -> Tensor:
        noise = torch.randn(count, *self.data.train[0].shape, generator=rng)
        return torch.cat([self._denoise(denoiser, part) for part in torch.split(noise, batch_size)])

    def _denoise(self, denoiser: nn.Module, noise: Tensor) -> Tensor:
        """uint8 images of noise (N, C, H, W), by Euler's method."""
        images, steps = noise.to(self.workspace.device), self.settings.sampling_steps
        for step in range(steps, 0, -1):
            times = images.new_full((len(images),), step / steps)
            images = images - denoiser(images, times) / steps
        if not images.isfinite().all():
            raise DivergedError("the denoiser's samples are not finite: its training has diverged")
        return (images.clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8).cpu()


@hookimpl
def dstbench_datasets() -> list[type[Dataset]]:
    return [Moons]


@hookimpl
def dstbench_models() -> list[type[Model]]:
    return [TinyFlow]
