"""Latent diffusion without its data, and in diffusers' form."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dstbench_ldm.decoder import CONFIG, PREFIX
from dstbench_ldm.model import LatentDiffusion
from dstbench_ldm.settings import AutoencoderSettings, LatentDiffusionSettings
from torch import nn

import dstbench
from dstbench.cache import Cache
from dstbench.contracts import Data, Pictures, Workspace
from dstbench.errors import ConfigError, PluginError, StoreError

SETTINGS = LatentDiffusionSettings(
    autoencoder=AutoencoderSettings(
        block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, codes=16, steps=6,
        batch_size=4,
    ),
    block_out_channels=(8, 16),
    attention=(False, True),
    attention_head_dim=8,
    layers_per_block=1,
    norm_num_groups=4,
    sampling_steps=5,
)  # fmt: skip


def make(folder: Path, width: int = 16, **changed: Any) -> tuple[LatentDiffusion, nn.Module]:
    """A model on random images of 16 × ``width`` pixels, and its denoiser."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(256, (12, 3, 16, width), generator=rng, dtype=torch.uint8)
    data = Data.of_images(list(images[:8]), list(images[8:]))
    settings = SETTINGS.model_copy(update=changed)
    model = LatentDiffusion(settings, data, Workspace(torch.device("cpu"), Cache(folder)))
    torch.manual_seed(0)
    return model, model.build().eval()


def sampled(model: LatentDiffusion, denoiser: nn.Module) -> torch.Tensor:
    return model.sample(denoiser, 4, 4, torch.Generator().manual_seed(0))


def test_the_decoding_half_is_enough_to_sample(tmp_path: Path) -> None:
    model, denoiser = make(tmp_path, eta=0.5)
    state = dict(model.sampling_state())
    assert not [name for name in state if name.startswith(f"{PREFIX}encoder")]
    data = Data.blank((3, 16, 16), torch.uint8, Pictures())
    nowhere = Workspace(torch.device("cpu"), Cache(tmp_path / "nowhere"))
    other = LatentDiffusion.for_sampling(model.settings, data, state, nowhere)
    assert torch.equal(sampled(other, denoiser), sampled(model, denoiser))
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"layers_per_block": 10**9},
        {"block_out_channels": [8] * 100},
        {"codes": 3},
        {"num_vq_embeddings": 60_000},
        {"up_block_types": ["os.system", "os.system"]},
    ],
)
def test_a_state_of_another_autoencoder_is_refused(changed: dict[str, Any], tmp_path: Path) -> None:
    model, _ = make(tmp_path)
    state = dict(model.sampling_state())
    state[CONFIG] = json.dumps(json.loads(str(state[CONFIG])) | changed)
    data = Data.blank((3, 16, 16), torch.uint8, Pictures())
    with pytest.raises((KeyError, TypeError, ValueError, RuntimeError)):
        LatentDiffusion.for_sampling(SETTINGS, data, state, model.workspace)


@pytest.mark.parametrize("spacing", ["trailing", "leading"])
def test_diffusers_samples_the_same(spacing: str, tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline

    model, denoiser = make(tmp_path, timestep_spacing=spacing)
    pipeline, arguments = model.diffusers_pipeline(denoiser)
    pipeline.save_pretrained(tmp_path / "out")
    loaded = DiffusionPipeline.from_pretrained(tmp_path / "out")
    loaded.set_progress_bar_config(disable=True)
    rng = torch.Generator().manual_seed(0)
    images = loaded(batch_size=4, generator=rng, output_type="np", **arguments).images
    expected = sampled(model, denoiser).permute(0, 2, 3, 1).numpy()
    difference = np.abs((images * 255).round().astype(int) - expected)
    assert difference.max() <= 1  # of 255: pixels are scaled in another order


def test_diffusers_has_no_oblong_images(tmp_path: Path) -> None:
    model, denoiser = make(tmp_path, width=32)
    with pytest.raises(ConfigError, match="square"):
        model.diffusers_pipeline(denoiser)


BENCHMARK: dict[str, Any] = {
    "name": "tiny",
    "grid": {"seeds": [1], "sparsities": [0.8], "sparsifiers": ["rigl"]},
    "tasks": [{"model": "ldm", "dataset": "digits"}],
    "models": {"ldm": LatentDiffusion.trial_settings},
    "training": {"steps": 4, "batch_size": 4, "log_every": 4},
    "evaluation": {"extractor": "lenet-digits", "samples": 8, "kid_subsets": 2},
    "sparsifiers": {"rigl": {"exploration_frequency": 2}},
    "execution": {"measure_seconds": 0},
}


def refuse_another_first_stage(cell: Path, folder: Path) -> None:
    """What is trained here need not be what was trained where the cell comes from."""
    here = LatentDiffusion.sampling_state

    def elsewhere(self: LatentDiffusion) -> Any:
        state = dict(here(self))
        name = next(name for name in state if name.startswith("autoencoder."))
        return state | {name: torch.as_tensor(state[name]) + 1}

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(LatentDiffusion, "sampling_state", elsewhere)
        with pytest.raises(StoreError, match=r"not what the cell was trained with \(autoenc"):
            dstbench.export_model(cell, folder, "diffusers")
    assert not folder.exists()


@pytest.mark.slow
def test_a_cells_folder_in_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSTBENCH_CACHE", str(tmp_path / "cache"))
    results = dstbench.run(BENCHMARK, results=tmp_path / "results")
    (record,) = results.records
    cell = results.folder / "cells" / record.cell.id
    kept = results.samples(record.cell)

    dstbench.export_model(cell, tmp_path / "packed")
    dstbench.export_model(cell, tmp_path / "diffusers", "diffusers")
    monkeypatch.setenv("DSTBENCH_CACHE", "/dev/null/none")
    model = dstbench.load_model(tmp_path / "packed")
    assert np.array_equal(model.sample(8).permute(0, 2, 3, 1).numpy(), kept)

    card = (tmp_path / "diffusers" / "README.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path / "diffusers")
    code: dict[str, Any] = {}
    exec(card.split("```python\n")[1].split("```")[0], code)
    assert [image.size for image in code["images"]] == [(32, 32)] * 16

    monkeypatch.setenv("DSTBENCH_CACHE", str(tmp_path / "cache"))
    refuse_another_first_stage(cell, tmp_path / "another")
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError:
        monkeypatch.setitem(sys.modules, "onnx", None)
        with pytest.raises(PluginError, match="pip install"):
            dstbench.export_model(cell, tmp_path / "onnx", "onnx")
        return
    from onnx.reference import ReferenceEvaluator

    dstbench.export_model(cell, tmp_path / "onnx", "onnx")
    graph = ReferenceEvaluator(onnx.load(tmp_path / "onnx" / "denoiser.onnx"))
    latents, steps = torch.randn(3, 3, 16, 16), torch.tensor([1, 500, 999])
    (found,) = graph.run(None, {"latents": latents.numpy(), "timesteps": steps.numpy()})
    with torch.no_grad():
        expected = model(latents, steps)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
