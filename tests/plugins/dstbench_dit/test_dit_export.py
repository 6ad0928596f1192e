"""A trained transformer that knows labels, exported, and loaded without its data."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from dstbench_dit.model import DiffusionTransformer
from dstbench_dit.settings import DiffusionTransformerSettings

import dstbench
from dstbench.contracts import Items
from dstbench.errors import ConfigError, PluginError
from dstbench.exporting.onnx import NAME, write_onnx

BENCHMARK: dict[str, Any] = {
    "name": "tiny",
    "grid": {"seeds": [1], "sparsities": [0.8], "sparsifiers": ["rigl"]},
    "tasks": [{"model": "dit", "dataset": "digits"}],
    "models": {
        "dit": {
            "space": "pixel", "patch_size": 8, "layers": 1, "width": 16, "heads": 2,
            "objective": "flow-matching", "sampling_steps": 3,
            "class_conditional": True, "guidance_scale": 2.0,
        }
    },
    "training": {"steps": 4, "batch_size": 4, "log_every": 4},
    "evaluation": {"extractor": "lenet-digits", "samples": 8, "kid_subsets": 2},
    "sparsifiers": {"rigl": {"exploration_frequency": 2}},
    "execution": {"measure_seconds": 0},
}  # fmt: skip


@pytest.mark.slow
def test_a_cell_in_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSTBENCH_CACHE", str(tmp_path / "cache"))
    results = dstbench.run(BENCHMARK, results=tmp_path / "results")
    (record,) = results.records
    assert record.status == "done", record.error
    counts = record.counts
    assert counts is not None
    assert counts.sample_flops == pytest.approx(6 * counts.inference_flops)
    cell = results.folder / "cells" / record.cell.id
    for form in ("packed", "dense"):
        dstbench.export_model(cell, tmp_path / form, form)
    with pytest.raises(PluginError, match="'dit' is no pipeline of diffusers'"):
        dstbench.export_model(cell, tmp_path / "diffusers", "diffusers")

    monkeypatch.setenv("DSTBENCH_CACHE", "/dev/null/none")
    for form in ("packed", "dense"):
        model = dstbench.load_model(tmp_path / form)
        kept = results.samples(record.cell)
        assert np.array_equal(model.sample(8).permute(0, 2, 3, 1).numpy(), kept)
        assert model.labels == tuple(range(10))
        threes = model.sample(4, labels=[3] * 4)
        assert torch.equal(model.sample(2, labels=[3, 3]), threes[:2])
        with pytest.raises(ConfigError, match="label 11 is none of 0, 1, "):
            model.sample(1, labels=[11])
        with pytest.raises(ConfigError, match="2 labels for 16 samples"):
            model.sample(labels=[1, 2])


@pytest.mark.slow
def test_onnx_computes_the_same_for_batches_of_any_size(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="the format takes the extra onnx")
    pytest.importorskip("onnxscript", reason="the format takes the extra onnx")
    from onnx.reference import ReferenceEvaluator

    settings = DiffusionTransformerSettings(
        space="pixel", layers=1, width=16, heads=2, zero_init=False, class_conditional=True
    )
    outline = DiffusionTransformer.outline(settings, Items((3, 8, 8), classes=10))
    assert outline is not None
    denoiser = outline.denoiser.eval()
    trained: Any = SimpleNamespace(
        record=SimpleNamespace(cell=SimpleNamespace(model="dit")),
        model=SimpleNamespace(build=lambda: outline.denoiser, example=lambda: outline.inputs),
        denoiser=denoiser,
    )
    write_onnx(trained, tmp_path)
    graph = ReferenceEvaluator(onnx.load(tmp_path / NAME))
    for count in (1, 3):
        inputs = (torch.randn(count, 3, 8, 8), torch.arange(count), torch.arange(count) + 7)
        named = {name: value.numpy() for name, value in zip(graph.input_names, inputs, strict=True)}
        (found,) = graph.run(None, named)
        with torch.no_grad():
            expected = denoiser(*inputs).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)
