"""Optional packages: the module, or what to install."""

import json
import sys
from pathlib import Path

import pytest

from dstbench.errors import PluginError
from dstbench.plugins import require


def test_a_package_that_is_there() -> None:
    assert require("json", "dataset 'mine'", "mine[json]") is json


def test_a_package_that_is_not_there() -> None:
    with pytest.raises(PluginError) as raised:
        require("no_such_package", "dataset 'mine'", "mine[extra]")
    assert str(raised.value) == (
        "dataset 'mine' needs the package no_such_package: pip install 'mine[extra]'"
    )


def test_a_package_that_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "halfway.py").write_text("import its_own_need")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError) as raised:
        require("halfway", "executor 'mine'", "mine[extra]")
    assert str(raised.value) == (
        "executor 'mine' needs the package halfway (No module named 'its_own_need'): pip install "
        "'mine[extra]'"
    )
    assert "halfway" not in sys.modules
