"""Density and coverage against values worked by hand."""

import sys

import pytest
import torch
from dstbench_features.manifolds import DensityCoverage

from dstbench.contracts import Features, PluginSettings
from dstbench.errors import PluginError
from dstbench.settings import EvaluationSettings


def on_a_line(*places: float) -> Features:
    return Features(torch.tensor([[place, 0.0] for place in places]))


def test_by_hand() -> None:
    """Real images at 0, 10 and 30 reach as far as their nearest neighbours: 10, 10 and 20. The
    samples are in the reach of two, of two (10 and 30) and of none: (2 + 2 + 0) / (1 · 3). Each
    real image has a sample in its reach."""
    pytest.importorskip("prdc")
    metric = DensityCoverage(PluginSettings(), EvaluationSettings(neighbours=1))
    assert metric(on_a_line(5, 15, 90), on_a_line(0, 10, 30)) == {
        "density": pytest.approx(4 / 3),
        "coverage": 1,
    }
    alone = metric(on_a_line(5, 6, 7), on_a_line(0, 10, 30))
    assert alone["coverage"] == pytest.approx(2 / 3)


def test_without_the_package_it_says_what_to_install_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "prdc", None)
    with pytest.raises(PluginError, match=r"pip install 'dstbench\[prdc\]'"):
        DensityCoverage(PluginSettings(), EvaluationSettings())
