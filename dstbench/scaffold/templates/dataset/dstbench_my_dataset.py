"""my-dataset, a dataset for dstbench."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from dstbench import hookimpl
from dstbench.contracts import Data, Dataset, Items, PluginSettings, Workspace
from pydantic import Field
from torch import Tensor

SIZE = 32
"""Pixels on a side."""


class MyDataset(Dataset["MyDataset.Settings"]):
    """Grey 32×32 images of one disc each, made up on the spot.

    CHANGE THIS: say what yours shows and where it comes from. `dstbench plugins` prints the first
    line.
    """

    name = "my-dataset"
    kind = "images"  # uint8 tensors (C, H, W); models say which kind they take

    class Settings(PluginSettings):
        # CHANGE THIS: what a benchmark may set under [datasets.my-dataset].
        train: int = Field(1024, ge=1, description="images to train with")
        validation: int = Field(128, ge=0, description="images held out")

    # CHANGE THIS: settings with which `dstbench check` takes seconds.
    trial_settings: ClassVar[Mapping[str, Any]] = {"train": 64, "validation": 16}

    def load(self, workspace: Workspace) -> Data:
        # CHANGE THIS: read your images here, the same ones in the same order every time. Where
        # they have to be downloaded or read from a person's disk, say so in availability().
        images = _discs(self.settings.train + self.settings.validation)
        items = [image.clone() for image in images]  # a view would carry all images with it
        train, validation = items[: self.settings.train], items[self.settings.train :]
        return Data.of_images(train, validation)

    def outline(self) -> Items:
        """The shape of an item, for `dstbench plan`."""
        return Items((1, SIZE, SIZE))


def _discs(count: int) -> Tensor:
    """uint8 images (N, 1, H, W) of light discs on black, with edges one pixel soft."""
    rng = torch.Generator().manual_seed(0)
    x, y, size = torch.rand(3, count, 1, 1, 1, generator=rng)
    radius = 4 + 6 * size
    x, y = (radius + (SIZE - 2 * radius) * place for place in (x, y))
    pixels = torch.arange(SIZE) + 0.5
    distance = torch.hypot(pixels - x, pixels[:, None] - y)
    brightness: Tensor = (radius - distance + 0.5).clamp(0, 1)
    return (brightness * 255).round().to(torch.uint8)


@hookimpl
def dstbench_datasets() -> list[type[Dataset]]:
    return [MyDataset]
