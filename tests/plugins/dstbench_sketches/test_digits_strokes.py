"""The traced digits: their split, and whether they are still digits."""

import os
from pathlib import Path
from subprocess import run
from sys import executable

import numpy as np
import pytest
import torch
from dstbench_features.lenet_digits import LeNetDigits
from dstbench_sketches import dstbench_datasets
from dstbench_sketches.digits_strokes import DigitsStrokes
from dstbench_sketches.tracing import trace
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from dstbench.cache import Cache
from dstbench.contracts import Workspace

COUNT = 400
"""The first of scikit-learn's digits: enough for what does not need all."""


@pytest.fixture(scope="module")
def some(tmp_path_factory):
    """The first digits, loaded, and their classes in the order of the held-out items."""
    digits = load_digits()
    digits.images, digits.target = digits.images[:COUNT], digits.target[:COUNT]
    workspace = Workspace(torch.device("cpu"), Cache(tmp_path_factory.mktemp("cache")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sklearn.datasets.load_digits", lambda: digits)
        data = DigitsStrokes(DigitsStrokes.Settings()).load(workspace)
    _, validation = train_test_split(
        range(COUNT), test_size=297, random_state=0, stratify=digits.target
    )
    return data, digits.target[validation]


def test_sizes_of_the_split(some) -> None:
    data, _ = some
    assert (len(data.train), len(data.validation)) == (COUNT - 297, 297)


def test_items_are_sequences_of_points(some) -> None:
    data, _ = some
    for item in [*data.train, *data.validation]:
        assert item.dtype == torch.float32
        assert item.ndim == 2
        assert item.shape[1] == 3
        assert 10 < len(item) <= 300
        assert item[0, :2].tolist() == [0, 0]
        assert item[-1, 2] == 1
        assert set(item[:, 2].tolist()) <= {0, 1}
        assert item[:, 2].sum() <= 4


@pytest.fixture
def artefacts(tmp_path) -> Path:
    """Where a test leaves what a person may want to look at."""
    folder = Path(os.environ.get("DSTBENCH_TEST_ARTEFACTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def sheet(digits: list[np.ndarray], columns: int = 15, side: int = 96) -> Image.Image:
    """Rows of pictures, beneath each its strokes in colours, with a ring where the pen starts."""
    rows = -(-len(digits) // columns)
    paper = Image.new("RGB", (columns * side, 2 * rows * side), "white")
    pen = ImageDraw.Draw(paper)
    for number, digit in enumerate(digits):
        row, column = divmod(number, columns)
        picture = Image.fromarray((255 - 255 * digit).astype(np.uint8))
        paper.paste(
            picture.resize((side, side), Image.Resampling.NEAREST), (column * side, 2 * row * side)
        )
        colours = ("red", "blue", "green", "orange")
        for stroke, colour in zip(trace(digit), colours, strict=False):
            points = list(map(tuple, stroke * side / 8 + [column * side, (2 * row + 1) * side]))
            pen.line(points, fill=colour, width=side // 24)
            pen.circle(points[0], side // 16, outline="black")
    return paper


def test_strokes_follow_the_lines_of_real_digits(artefacts) -> None:
    digits, classes = load_digits(return_X_y=True)
    digits = digits.reshape(-1, 8, 8) / 16
    shown = [digit for n in range(10) for digit in digits[classes == n][:15]]
    sheet(shown).save(artefacts / "digits-strokes.png")

    drawn = []
    for digit in shown:
        points = np.concatenate(trace(digit))
        columns, rows = np.clip(points.astype(int), 0, 7).T
        assert (digit[rows, columns] >= 0.25).mean() > 0.95  # no line where there is none
        ways = np.argwhere(digit >= 0.75)[:, None, ::-1] + 0.5 - points
        drawn.append((np.hypot(*ways.transpose(2, 0, 1)).min(axis=1) < 1.3).mean())
    assert np.mean(drawn) > 0.98
    assert min(drawn) > 0.5  # blots have more than one line can cover


def test_the_outline_is_true_on_average(some) -> None:
    data, _ = some
    points = [len(item) for item in [*data.train, *data.validation]]
    outline = DigitsStrokes(DigitsStrokes.Settings()).outline()
    assert outline.shape == (pytest.approx(np.mean(points), abs=1), 3)
    assert outline.assumption == "sketches of 43 points, the mean of those digits"


def test_the_classifier_of_real_digits_reads_traced_ones(some, told) -> None:
    """In the order of the split, too: it would read noise right one time in ten."""
    data, classes = some
    lenet = LeNetDigits(LeNetDigits.Settings(), told.workspace)
    read = lenet(data.to_images(data.validation)).logits.argmax(dim=1).numpy()
    assert (read == classes).mean() > 0.8


@pytest.mark.slow
def test_all_digits_are_there(told) -> None:
    data = DigitsStrokes(DigitsStrokes.Settings()).load(told.workspace)
    assert (len(data.train), len(data.validation)) == (1500, 297)
    assert not any("left out" in message for message in told.messages)
    digits = load_digits()
    _, held_out = train_test_split(
        range(1797), test_size=297, random_state=0, stratify=digits.target
    )
    lenet = LeNetDigits(LeNetDigits.Settings(), told.workspace)
    read = lenet(data.to_images(data.validation)).logits.argmax(dim=1).numpy()
    assert np.mean(read == digits.target[held_out]) > 0.8


def test_plugin_offers_the_datasets() -> None:
    datasets = dstbench_datasets()
    assert DigitsStrokes in datasets
    assert {dataset.kind for dataset in datasets} == {"sketches"}


def test_listing_the_plugin_imports_nothing_slow() -> None:
    code = (
        "import sys, dstbench_sketches as plugin; plugin.dstbench_datasets(); "
        "sys.exit(bool({'torch', 'sklearn', 'skimage', 'svgpathtools', 'networkx', 'joblib'} "
        "& set(sys.modules)))"
    )
    assert run([executable, "-c", code], check=False, cwd=Path.cwd()).returncode == 0
