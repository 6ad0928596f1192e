"""The digits: their form, their split, their enlargement."""

import sys
from pathlib import Path
from subprocess import run

import numpy as np
import pytest
import torch
from dstbench_images import dstbench_datasets
from dstbench_images.digits import Digits
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from dstbench.cache import Cache
from dstbench.contracts import Data, Workspace


def load(folder: Path) -> Data:
    return Digits(Digits.Settings()).load(Workspace(torch.device("cpu"), Cache(folder)))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return load(tmp_path_factory.mktemp("cache"))


def test_the_plugin_offers_the_digits() -> None:
    assert Digits in dstbench_datasets()
    assert (Digits.name, Digits.kind) == ("digits", "images")


@pytest.mark.parametrize(("split", "size"), [("train", 1500), ("validation", 297)])
def test_items_are_grey_uint8_images_of_32_pixels(data: Data, split: str, size: int) -> None:
    items = data.split(split)
    assert len(items) == size
    assert {(tuple(item.shape), item.dtype) for item in items} == {((1, 32, 32), torch.uint8)}


def test_the_outline_is_true(data: Data) -> None:
    outline = Digits(Digits.Settings()).outline()
    assert outline.shape == data.train[0].shape
    assert outline.classes == len(data.classes) == 10


def test_labels_are_those_of_the_images(data: Data) -> None:
    """The ink of zeros and ones differs most where zeros are hollow."""
    middle = data.to_images(data.train)[:, 0, 12:20, 14:18].float().mean(dim=(1, 2))
    labels = torch.tensor(data.labels["train"])
    assert middle[labels == 1].mean() > 3 * middle[labels == 0].mean()
    assert len(data.labels["validation"]) == len(data.validation)


def test_images_use_the_whole_range_of_grey(data: Data) -> None:
    images = data.to_images(data.train)
    assert images.shape == (1500, 1, 32, 32)
    assert (images.min(), images.max()) == (0, 255)


def test_split_is_the_stratified_one(data: Data) -> None:
    digits = load_digits()
    indices = np.arange(1797)
    train, validation = train_test_split(
        indices, test_size=297, random_state=0, stratify=digits.target
    )
    # The corner of an enlarged image is that of the small one.
    for items, chosen in (data.train, train), (data.validation, validation):
        corners = data.to_images(items)[:, 0, [0, -1], [0, -1]].numpy()
        expected = digits.images[chosen][:, [0, -1], [0, -1]] * 255 / 16
        assert np.abs(corners - expected).max() <= 0.5


def test_pixels_in_between_are_interpolated(data: Data) -> None:
    """Column 2 of 32 lies at (2 + ½) / 4 − ½ = ⅛ of the way from column 0 to column 1 of 8."""
    digits = load_digits()
    train, _ = train_test_split(range(1797), test_size=297, random_state=0, stratify=digits.target)
    top = digits.images[train][:, 0] * 255 / 16
    expected = top[:, 0] * 7 / 8 + top[:, 1] / 8
    assert expected.max() > 0
    assert np.abs(data.to_images(data.train)[:, 0, 0, 2].numpy() - expected).max() <= 0.51


def test_fingerprint_is_that_of_the_content(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(data.fingerprint) == 64
    assert load(tmp_path).fingerprint == data.fingerprint

    changed = load_digits()
    changed.images[0, 0, 0] += 1
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda: changed)
    assert load(tmp_path).fingerprint != data.fingerprint


def test_listing_the_plugin_imports_nothing_slow() -> None:
    code = (
        "import sys, dstbench_images as plugin; plugin.dstbench_datasets(); "
        "sys.exit('sklearn' in sys.modules)"
    )
    assert run([sys.executable, "-c", code], check=False).returncode == 0
