"""A plugin of each kind, as small as can be, as a third party would write it.

The environment variable ``TOYS_STOP`` stops a run at a step of every cell that gets there:
``SIGKILL:17``, or ``SIGINT:17`` (Ctrl-C).
"""

import json
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dstbench import hookimpl
from dstbench.contracts import (
    READY,
    Availability,
    Data,
    Dataset,
    Ended,
    Executor,
    FeatureExtractor,
    Features,
    Items,
    Model,
    Outline,
    PluginSettings,
    RunCell,
    Split,
    Tracker,
    Workspace,
)
from dstbench.errors import DataError, DivergedError
from dstbench.grid import Cell
from dstbench.sparsity import DynamicSparsifier, Layer, Sparsifier

SIZE = 4
CHANNELS = 8
SAMPLING_STEPS = 3
STOP = "TOYS_STOP"


class ToyImages(Dataset):
    """Grey 4×4 images, each of one shade and a little noise."""

    name = "toy-images"
    kind = "images"

    class Settings(PluginSettings):
        train: int = Field(26, ge=1, description="images to train with")
        validation: int = Field(7, ge=0, description="images for validation")
        away: Literal["person", "web", "offline"] | None = Field(
            None, description="who has them, if they are not there; the web's go into the cache"
        )

    def availability(self, workspace: Workspace) -> Availability:
        if self.settings.away == "person":
            return Availability("missing", "ask the toymaker")
        if self.settings.away and not workspace.cache.has("toys", {}):
            return Availability("download", "1 kB from the toyshop")
        return READY

    def load(self, workspace: Workspace) -> Data:
        if self.settings.away == "web":
            workspace.cache.folder("toys", {}, lambda folder: None)
        elif self.settings.away:
            raise DataError("the toyshop is closed")
        count = self.settings.train + self.settings.validation
        rng = torch.Generator().manual_seed(0)
        shades = torch.randint(20, 236, (count, 1, 1, 1), generator=rng)
        noise = torch.randint(-20, 20, (count, 1, SIZE, SIZE), generator=rng)
        images = (shades + noise).to(torch.uint8)
        train, validation = images[: self.settings.train], images[self.settings.train :]
        return Data(
            list(train),
            list(validation),
            f"toy {self.settings}",
            stack,
        )


def stack(items: Any) -> Tensor:
    return torch.stack(list(items))


class ToyModel(Model):
    """Denoises pixels with three convolutions and dropout; leaves the mode to the harness."""

    name = "toy-net"
    accepts = "images"

    class Settings(PluginSettings):
        dropout: float = Field(0.2, ge=0, lt=1, description="of the first activations")

    def build(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, CHANNELS, 3, padding=1),
            nn.SiLU(),
            nn.Dropout(self.settings.dropout),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(CHANNELS, 1, 3, padding=1),
        ).to(self.workspace.device)

    def batch(self, split: Split, indices: Tensor) -> Tensor:
        items = self.data.split(split)
        images = torch.stack([items[index] for index in indices.tolist()])
        return (images / 127.5 - 1).to(self.workspace.device)

    def loss(self, denoiser: nn.Module, batch: Any, rng: torch.Generator) -> Tensor:
        time = torch.rand(len(batch), 1, 1, 1, generator=rng)
        noise = torch.randn(batch.shape, generator=rng).to(batch.device)
        predicted = denoiser(torch.lerp(batch, noise, time.to(batch.device)))
        return nn.functional.mse_loss(predicted, noise)

    def sample(
        self, denoiser: nn.Module, count: int, batch_size: int, rng: torch.Generator
    ) -> Tensor:
        noise = torch.randn(count, 1, SIZE, SIZE, generator=rng)
        return torch.cat([self._denoise(denoiser, part) for part in noise.split(batch_size)])

    def _denoise(self, denoiser: nn.Module, images: Tensor) -> Tensor:
        images = images.to(self.workspace.device)
        for _ in range(SAMPLING_STEPS):
            images = images - denoiser(images) / SAMPLING_STEPS
        if not images.isfinite().all():
            raise DivergedError("the toy's samples are not finite")
        return (images.clamp(-1, 1) * 127.5 + 127.5).to(torch.uint8).cpu()

    def example(self) -> tuple[Tensor]:
        return (torch.zeros(1, 1, SIZE, SIZE, device=self.workspace.device),)

    @property
    def calls_per_sample(self) -> int:
        return SAMPLING_STEPS

    def metadata(self) -> dict[str, float | int | str]:
        return {"size": SIZE}


class ToyWidths(ToyModel):
    """The same in any width, and known without data; not plugged in."""

    name = "toy-widths"

    class Settings(ToyModel.Settings):
        width: int = Field(CHANNELS, ge=1, description="channels inside")

    def build(self) -> nn.Module:
        return self._outline().denoiser

    @classmethod
    def outline(cls, settings: Any, items: Items) -> Outline:
        width = settings.width
        denoiser = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 1, 3, padding=1),
        )
        return Outline(denoiser, (torch.zeros(1, *items.shape),), SAMPLING_STEPS)

    @classmethod
    def narrower(cls, settings: Any) -> list[Any]:
        widths = range(1, settings.width + 1)
        return [settings.model_copy(update={"width": width}) for width in widths]


class ToyFeatures(FeatureExtractor):
    """A fixed random projection of the pixels."""

    name = "toy-features"
    weights_hash = "70" * 32
    resize = "none"

    def __call__(self, images: Tensor) -> Features:
        rng = torch.Generator().manual_seed(0)
        projection = torch.randn(images[0].numel(), 12, generator=rng)
        features, logits = (images.flatten(1) / 255 @ projection).split((8, 4), dim=1)
        return Features(features, logits)


class Leftmost(DynamicSparsifier):
    """Drop by magnitude, grow the first connections that are free."""

    name = "leftmost"

    class Settings(DynamicSparsifier.Settings):
        exploration_frequency: int = Field(3, description="steps between two topology updates")

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        count = layer.weight.numel()
        return -torch.arange(count, device=layer.weight.device).view_as(layer.weight)


class ToyLines(Tracker):
    """A line of JSON, in the cell's folder, wherever it progresses."""

    name = "toy-lines"

    def cell_started(self, cell: Cell, folder: Path) -> None:
        self.path = folder / "told.jsonl"

    def progressed(self, step: int, loss: float, seconds_per_step: float) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, "loss": loss}) + "\n")


@hookimpl
def dstbench_trackers() -> list[type[Tracker]]:
    return [ToyLines]


@hookimpl
def dstbench_models() -> list[type[Model]]:
    return [ToyModel]


@hookimpl
def dstbench_datasets() -> list[type[Dataset]]:
    return [ToyImages]


@hookimpl
def dstbench_sparsifiers() -> list[type[Sparsifier]]:
    return [Leftmost]


@hookimpl
def dstbench_feature_extractors() -> list[type[FeatureExtractor]]:
    return [ToyFeatures]


class Here(Executor):
    """In this process, one after another."""

    name = "here"

    def run(self, run_cell: RunCell, cells: Sequence[Cell]) -> Iterator[Ended]:
        for cell in cells:
            run_cell(cell)
            yield Ended(cell)


@hookimpl
def dstbench_executors() -> list[type[Executor]]:
    return [Here]


@hookimpl
def dstbench_step(step: int) -> None:
    name, _, at = os.environ.get(STOP, "").partition(":")
    if at == str(step):
        os.kill(os.getpid(), signal.Signals[name])
