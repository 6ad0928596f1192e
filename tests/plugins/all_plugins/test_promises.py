"""Every plugin that ships with dstbench keeps the promises of its kind."""

from pathlib import Path
from unittest import SkipTest

import numpy as np
import pytest
from PIL import Image

from dstbench.plugins.plugin import Plugin
from dstbench.plugins.registry import load_plugins
from dstbench.testing import CheckFailed, checks

SHIPPED = [plugin for plugin in load_plugins().listing if plugin.distribution == "dstbench"]

QUICK = {"chirodiff", "digits", "image-folder", "lenet-digits"}


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
    monkeypatch.chdir(tmp_path)
    assert plugin.cls is not None
    settings = {"path": str(pictures)} if plugin.name == "image-folder" else None
    kept, broken = 0, []
    for check in checks(plugin.cls, settings):
        try:
            check()
            kept += 1
        except CheckFailed as failure:
            broken.append(str(failure))
        except SkipTest:
            pass
    assert not broken
    assert kept >= 3
