"""Every plugin that ships with dstbench keeps the promises of its kind."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dstbench.kernels.library import why_not
from dstbench.plugins.plugin import Plugin
from dstbench.plugins.registry import load_plugins
from dstbench.testing import checks
from dstbench.testing.running import run

SHIPPED = [plugin for plugin in load_plugins().listing if plugin.distribution == "dstbench"]

QUICK = {"chirodiff", "density-coverage", "digits", "fid", "image-folder", "inception-score", "kid",
         "lenet-digits", "precision-recall"}  # fmt: skip

NO_DRAWINGS = {"drawings-are-svg": "its items are no drawings"}

NO_LABELS = {"labels-fit-the-items": "its items have no labels"}

WITHOUT_DATA = dict.fromkeys(
    (
        "items-are-of-their-kind",
        "splits-are-disjoint",
        "loading-is-deterministic",
        "another-process-loads-the-same",
        "pictures-can-be-scored",
        "drawings-are-svg",
        "pictures-need-no-data",
        "labels-fit-the-items",
        "outline-fits-the-items",
        "data-survive-pickling",
    ),
    "its data is not there",
)

WITHOUT_WEIGHTS = dict.fromkeys(
    (
        "features-are-matrices",
        "features-tell-images-apart",
        "features-do-not-depend-on-batch-size",
        "extracting-is-deterministic",
        "weights-are-named",
    ),
    "its weights are not there",
)

WITHOUT_SLURM = dict.fromkeys(
    (
        "every-cell-is-run-once",
        "an-exception-ends-its-cell-alone",
        "a-dead-process-ends-its-cell-alone",
        "cells-draw-alone",
        "closing-leaves-no-process-behind",
    ),
    "it runs no cells here: executor 'slurm' needs Slurm's command sbatch",
)

FIXED = dict.fromkeys(("topology-moves", "kept-connections-stay"), "its masks are fixed")

SKIPPED: dict[str, dict[str, str]] = {
    "celeba-hq": WITHOUT_DATA,
    "clip": WITHOUT_WEIGHTS,
    "digits": NO_DRAWINGS,
    "digits-strokes": NO_LABELS,
    "dinov2": WITHOUT_WEIGHTS,
    "efficientnet-lite0": {} if find_spec("efficientnet_lite_pytorch") else WITHOUT_WEIGHTS,
    "gmp": {"blocks-stay-whole": 'refused: structure = "2:4" leaves no room'},
    "granet": {"blocks-stay-whole": 'refused: structure = "2:4" leaves no room'},
    "grasp": {**FIXED, "blocks-stay-whole": "refused: GraSP: 1 validation error"},
    "image-folder": NO_DRAWINGS,
    "imagenette": WITHOUT_DATA,
    "inception": WITHOUT_WEIGHTS,
    "kanjivg": WITHOUT_DATA,
    "lsun-bedrooms": WITHOUT_DATA,
    "quickdraw": WITHOUT_DATA,
    "slurm": {} if shutil.which("sbatch") else WITHOUT_SLURM,
    "snfs": {"blocks-stay-whole": 'refused: structure = "2:4" leaves no room'},
    "snip": {**FIXED, "blocks-stay-whole": "refused: SNIP: 1 validation error"},
    "srigl": dict.fromkeys(
        ("groups-stay-whole", "blocks-stay-whole"), "refused: SRigL: 1 validation error"
    ),
    "static": FIXED,
    "vmnist": WITHOUT_DATA,
}
"""The checks of each plugin that are skipped where nothing is downloaded, with the beginning of the
reason; all others are kept."""


NEEDED = {
    "density-coverage": "prdc",
    "mlflow": "mlflow",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
}
"""Packages without which a plugin cannot be checked."""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of a few images."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(30):
        pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module", autouse=True)
def _kernels() -> None:
    """Looked for before a test has an empty cache, in which they would be compiled once more."""
    why_not()


@pytest.mark.parametrize(
    "plugin",
    [
        pytest.param(each, id=each.name, marks=() if each.name in QUICK else pytest.mark.slow)
        for each in SHIPPED
    ],
)
def test_a_shipped_plugin_keeps_its_promises(
    plugin: Plugin, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSTBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DSTBENCH_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert plugin.cls is not None
    if package := NEEDED.get(plugin.name):
        pytest.importorskip(package)
    settings = {"path": str(pictures)} if plugin.name == "image-folder" else None
    outcomes = list(run(checks(plugin.cls, settings)))
    assert [str(each.failure) for each in outcomes if each.state == "broken"] == []
    skipped = {str(each.check): each.reason for each in outcomes if each.state == "skipped"}
    expected = SKIPPED.get(plugin.name, {})
    assert skipped.keys() == expected.keys()
    for name, reason in skipped.items():
        assert reason.startswith(expected[name])


def test_what_is_skipped_is_of_plugins_that_ship() -> None:
    assert SKIPPED.keys() <= {plugin.name for plugin in SHIPPED}
