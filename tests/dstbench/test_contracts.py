"""What the base classes of plugins do by themselves."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dstbench.cache import Cache
from dstbench.contracts import Data, Items, Model, Outline, PluginSettings, Split, Workspace
from dstbench.errors import PluginError

IMAGES = [torch.full((1, 4, 4), shade, dtype=torch.uint8) for shade in range(5)]
DATA = Data.of_images(IMAGES[:3], IMAGES[3:])


class Outlined(Model["Outlined.Settings"]):
    """Defines the four members that are required."""

    name = "outlined"
    accepts = "images"

    class Settings(PluginSettings):
        width: int = 6

    @classmethod
    def outline(cls, settings: Settings, items: Items) -> Outline | None:
        denoiser = nn.Sequential(nn.Conv2d(items.shape[0], settings.width, 3), nn.Dropout())
        return Outline(denoiser, (torch.ones(1, *items.shape), "words"), 7)

    def batch(self, split: Split, indices: Tensor) -> Any: ...

    def loss(self, denoiser: nn.Module, batch: Any, rng: torch.Generator) -> Tensor:
        raise NotImplementedError

    def sample(
        self, denoiser: nn.Module, count: int, batch_size: int, rng: torch.Generator
    ) -> Tensor:
        raise NotImplementedError


class Unknown(Outlined):
    @classmethod
    def outline(cls, settings: Outlined.Settings, items: Items) -> None:
        return None


class Overriding(Unknown):
    calls_per_sample = 2  # type: ignore[assignment]

    def build(self) -> nn.Module:
        return nn.Identity()

    def example(self) -> tuple[Any, ...]:
        return ()


def model(cls: type[Outlined], folder: Path, device: str = "cpu") -> Outlined:
    return cls(cls.Settings(width=3), DATA, Workspace(torch.device(device), Cache(folder)))


def test_an_outline_is_enough(tmp_path: Path) -> None:
    mine = model(Outlined, tmp_path)
    torch.manual_seed(0)
    expected = nn.Conv2d(1, 3, 3)
    torch.manual_seed(0)
    denoiser = mine.build()
    assert isinstance(denoiser, nn.Sequential)
    assert torch.equal(denoiser[0].weight, expected.weight)
    image, words = mine.example()
    assert torch.equal(image, torch.ones(1, 1, 4, 4))
    assert words == "words"
    assert mine.calls_per_sample == 7


def test_an_outline_is_told_the_number_of_classes(tmp_path: Path) -> None:
    mine = model(Outlined, tmp_path)
    assert mine.items == Items((1, 4, 4), classes=0)
    mine.data = replace(DATA, labels={"train": ["b", 10, "a", 9, "b"], "validation": ["c"]})
    assert mine.data.classes == (9, 10, "a", "b")
    assert mine.items.classes == 4


def test_every_build_is_a_new_one(tmp_path: Path) -> None:
    mine = model(Outlined, tmp_path)
    first, second = mine.build(), mine.build()
    assert not torch.equal(next(first.parameters()), next(second.parameters()))


def test_asking_for_the_example_draws_no_random_number(tmp_path: Path) -> None:
    mine = model(Outlined, tmp_path)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    mine.example()
    assert mine.calls_per_sample == 7
    assert torch.equal(torch.rand(1), expected)


def test_what_is_derived_is_on_the_workspaces_device(tmp_path: Path) -> None:
    mine = model(Outlined, tmp_path, "meta")
    assert {parameter.device.type for parameter in mine.build().parameters()} == {"meta"}
    assert mine.example()[0].device.type == "meta"


def test_a_models_own_members_go_first(tmp_path: Path) -> None:
    mine = model(Overriding, tmp_path)
    assert isinstance(mine.build(), nn.Identity)
    assert (mine.example(), mine.calls_per_sample) == ((), 2)


def test_nothing_follows_from_no_outline(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="'outlined' has no outline for its settings, and does"):
        model(Unknown, tmp_path).build()


def test_data_of_images() -> None:
    assert (DATA.split("train"), DATA.split("validation")) == (IMAGES[:3], IMAGES[3:])
    assert torch.equal(DATA.to_images(DATA.train), torch.stack(IMAGES[:3]))
    assert torch.equal(DATA.to_images(torch.stack(IMAGES)), torch.stack(IMAGES))
    again = pickle.loads(pickle.dumps(DATA))
    assert again.fingerprint == DATA.fingerprint
    assert torch.equal(again.to_images(again.validation), torch.stack(IMAGES[3:]))


def test_data_of_images_with_what_is_known_of_them() -> None:
    data = Data.of_images(IMAGES[:3], (), labels={"train": [0, 1, 2]}, fingerprint="known")
    assert (data.fingerprint, data.labels) == ("known", {"train": [0, 1, 2]})


def test_the_fingerprint_is_that_of_shapes_pixels_splits_and_order() -> None:
    flat = [image.view(1, 2, 8) for image in IMAGES]
    others = [
        Data.of_images(IMAGES[:2], IMAGES[2:]),
        Data.of_images(IMAGES, ()),
        Data.of_images(IMAGES[:3][::-1], IMAGES[3:]),
        Data.of_images(IMAGES[1:4], IMAGES[3:]),
        Data.of_images(flat[:3], flat[3:]),
    ]
    assert len({data.fingerprint for data in (DATA, *others)}) == 1 + len(others)
    # Caches are found by it: it is the same in every process and version.
    assert DATA.fingerprint == Data.of_images(torch.stack(IMAGES[:3]), IMAGES[3:]).fingerprint
    assert DATA.fingerprint == "34e30b3a27cfe24770472b2d1c6cf0da9bd7e542f01344ad3b47be0b212509de"
