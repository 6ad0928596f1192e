"""Trained models leave, and are what they were."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toys import ToyImages

import dstbench
from dstbench.contracts import Workspace
from dstbench.errors import ConfigError, DstbenchError, PluginError, StoreError
from dstbench.store import CellFolder
from dstbench.store.weights import read_masks

Trained = Callable[..., CellFolder]


@pytest.fixture
def without_data(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Takes the dataset away."""

    def refuse(self: ToyImages, workspace: Workspace) -> Any:
        raise AssertionError("loaded")

    return lambda: monkeypatch.setattr(ToyImages, "load", refuse)


def kept(folder: CellFolder) -> torch.Tensor:
    """The images that were scored (n, C, H, W)."""
    return torch.from_numpy(np.load(folder.samples)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("format", ["packed", "dense"])
@pytest.mark.parametrize("kernels", ["masked", "sparse"])
def test_an_exported_model_is_the_cells(
    format: Any,
    kernels: str,
    trained: Trained,
    tmp_path: Path,
    without_data: Callable[[], None],
) -> None:
    folder = trained(seed=2, training={"kernels": kernels})
    dstbench.export_model(folder.path, tmp_path / "out", format)
    without_data()
    model = dstbench.load_model(tmp_path / "out")
    assert torch.equal(model.sample(9, seed=2), kept(folder))
    assert torch.equal(model.sample(9), kept(folder))
    state, masks = folder.denoiser_state(), folder.read(folder.denoiser, read_masks)
    assert state.keys() == model.denoiser.state_dict().keys()
    for name, tensor in model.denoiser.state_dict().items():
        assert torch.equal(tensor.view(torch.int32), state[name].view(torch.int32)), name
    assert masks.keys() <= model.masks.keys()
    assert all(torch.equal(mask, model.masks[name]) for name, mask in masks.items())
    assert model.cell == folder.record().cell  # type: ignore[union-attr]


def test_a_dense_file_is_a_state_dict(trained: Trained, tmp_path: Path) -> None:
    folder = trained()
    dstbench.export_model(folder.path, tmp_path / "out", "dense")
    state = load_file(tmp_path / "out" / "model.safetensors")
    expected = folder.denoiser_state()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)


def test_a_cell_is_a_model_too(trained: Trained, without_data: Callable[[], None]) -> None:
    folder = trained("dense", 0.0)
    without_data()
    model = dstbench.load_model(folder.path)
    assert torch.equal(model.sample(9), kept(folder))
    assert isinstance(model, torch.nn.Module)
    assert not model.masks
    assert model(torch.zeros(2, 1, 4, 4)).shape == (2, 1, 4, 4)


def test_samples_follow_from_the_seed(trained: Trained, tmp_path: Path) -> None:
    dstbench.export_model(trained().path, tmp_path / "out")
    model = dstbench.load_model(tmp_path / "out").train()
    torch.manual_seed(7)
    first = model.sample(4, seed=5)
    assert model.training
    assert first.dtype == torch.uint8
    assert torch.equal(model.sample(4, seed=5), first)
    assert not torch.equal(model.sample(4, seed=6), first)
    assert torch.equal(torch.as_tensor(model.sample_items(4, seed=5)), first)


def test_a_model_without_labels_takes_none(trained: Trained) -> None:
    model = dstbench.load_model(trained("dense", 0.0).path)
    assert model.labels == ()
    with pytest.raises(ConfigError, match="'toy-net' is not conditional: it takes no labels"):
        model.sample(2, labels=[0, 0])


def test_loading_draws_from_no_global_generator(trained: Trained, tmp_path: Path) -> None:
    dstbench.export_model(trained().path, tmp_path / "out")
    before = torch.get_rng_state()
    dstbench.load_model(tmp_path / "out")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_card_says_how_good_it_is_and_how_to_use_it(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = trained()
    out = tmp_path / "out"
    dstbench.export_model(folder.path, out, licence="cc-by-4.0")
    card = (out / "README.md").read_text(encoding="utf-8")
    matter = dict(line.split(": ", 1) for line in card.split("---")[1].strip().splitlines())
    told = {key: json.loads(value) for key, value in matter.items()}
    assert (told["license"], told["library_name"]) == ("cc-by-4.0", "dstbench")
    assert {"toy-net", "rigl"} <= set(told["tags"])
    (row,) = [line for line in card.splitlines() if line.startswith("| rigl")]
    assert "| 0.5 |" in row
    assert "samples.png" in card
    assert (out / "samples.png").read_bytes() == folder.sheet.read_bytes()
    settings = json.loads(card.split("```json\n")[1].split("```")[0])
    assert settings == folder.record().cell.identity  # type: ignore[union-attr]
    monkeypatch.chdir(out)
    code: dict[str, Any] = {}
    exec(card.split("```python\n")[1].split("```")[0], code)
    assert code["images"].shape == (16, 1, 4, 4)


def test_a_link_instead_of_pictures_is_not_followed(trained: Trained, tmp_path: Path) -> None:
    folder = trained()
    (tmp_path / "secret").write_text("mine")
    folder.sheet.unlink()
    folder.sheet.symlink_to(tmp_path / "secret")
    dstbench.export_model(folder.path, tmp_path / "out")
    assert not (tmp_path / "out" / "samples.png").exists()
    assert "samples.png" not in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_what_cannot_be_exported(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = trained().path
    out = tmp_path / "there" / "out"
    wrong: list[tuple[Path, str, dict[str, Any], type[DstbenchError], str]] = [
        (tmp_path, "packed", {}, StoreError, "no trained cell is here"),
        (cell, "diffusers", {}, PluginError, "no pipeline of diffusers"),
        (cell, "packed", {"licence": "my own: licence"}, ConfigError, "apache-2.0"),
        (cell, "onnx", {}, PluginError, r"pip install 'dstbench\[onnx\]'"),
    ]
    monkeypatch.setitem(sys.modules, "onnx", None)
    for path, format, more, error, message in wrong:
        with pytest.raises(error, match=message):
            dstbench.export_model(path, out, format, **more)  # type: ignore[arg-type]
        assert not out.parent.exists() or not list(out.parent.iterdir())
    out.mkdir(parents=True)
    with pytest.raises(StoreError, match="stays as it is"):
        dstbench.export_model(cell, out)


def test_a_model_that_was_moved_says_so(trained: Trained, tmp_path: Path) -> None:
    dstbench.export_model(trained().path, tmp_path / "out")
    model = dstbench.load_model(tmp_path / "out").to("meta")
    with pytest.raises(PluginError, match="load it onto the device"):
        model.sample(1)
