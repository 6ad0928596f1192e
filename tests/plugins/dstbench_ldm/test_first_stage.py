"""The first stage: published autoencoders, and latents that are mapped from disk."""

import os
import signal
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from dstbench_ldm import first_stage
from dstbench_ldm.autoencoder import build_autoencoder, encode
from dstbench_ldm.first_stage import FirstStage, prepare_first_stage
from dstbench_ldm.settings import AutoencoderSettings, LatentDiffusionSettings

from dstbench.cache import Cache
from dstbench.contracts import Data, Workspace
from dstbench.errors import ConfigError, DataError

SMALL = {"block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1, "codes": 16}


def images(count: int, size: int) -> Data:
    rng = torch.Generator().manual_seed(0)
    content = torch.randint(256, (count, 3, size, size), generator=rng, dtype=torch.uint8)
    held_out = count // 4
    return Data(list(content[held_out:]), list(content[:held_out]), f"{count} {size}", torch.stack)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(torch.device("cpu"), Cache(tmp_path / "cache"))


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder as the hub would give it, with random weights."""
    torch.manual_seed(0)
    autoencoder = build_autoencoder(AutoencoderSettings(**SMALL), channels=3)
    autoencoder.save_pretrained(tmp_path / "pipeline" / "vqvae")
    return tmp_path / "pipeline"


def published_at(name: Path | str, **changed: Any) -> LatentDiffusionSettings:
    return LatentDiffusionSettings(
        first_stage=str(name), autoencoder=AutoencoderSettings(**SMALL | changed)
    )


@pytest.mark.parametrize("below", ["", "vqvae"])
def test_a_published_autoencoder(workspace: Workspace, published: Path, below: str) -> None:
    data = images(40, 16)
    settings = published_at(published / below)
    stage = prepare_first_stage(settings, data, workspace)
    torch.manual_seed(0)
    autoencoder = build_autoencoder(AutoencoderSettings(**SMALL), channels=3)
    for split in ("train", "validation"):
        pixels = torch.stack(list(data.split(split))) / 127.5 - 1
        torch.testing.assert_close(stage.latents[split], autoencoder.encode(pixels).latents)
    assert stage.scaling_factor == pytest.approx(1 / float(stage.latents["train"].std()))


def test_without_a_validation_split_no_error_is_known(
    workspace: Workspace, published: Path
) -> None:
    data = images(3, 16)
    assert not data.validation
    stage = prepare_first_stage(published_at(published), data, workspace)
    assert stage.latents["validation"].shape == (0, *stage.latents["train"].shape[1:])
    assert "first_stage_rmse" not in stage.metadata


def test_sizes_that_are_not_the_published_ones(workspace: Workspace, published: Path) -> None:
    for changed in ({"latent_channels": 4}, {"block_out_channels": (8, 8, 8)}):
        settings = published_at(published, **changed)
        with pytest.raises(ConfigError, match=f"has {next(iter(changed))} = .*set autoencoder"):
            prepare_first_stage(settings, images(8, 16), workspace)


def test_without_a_network(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"'nobody/has-this' cannot be loaded: .* name a folder"):
        prepare_first_stage(published_at("nobody/has-this"), images(8, 16), workspace)


@pytest.mark.timeout(60)
def test_a_pipe_in_place_of_weights(workspace: Workspace, published: Path) -> None:
    weights = published / "vqvae" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    os.mkfifo(weights)
    with pytest.raises(DataError, match=r"cannot be loaded: .*a pipe, no regular file"):
        prepare_first_stage(published_at(published), images(8, 16), workspace)


def test_latents_that_are_cut_off_are_made_anew(workspace: Workspace, published: Path) -> None:
    prepare_first_stage(published_at(published), images(8, 16), workspace)
    (latents,) = workspace.cache.root.glob("ldm-latents-*/train")
    whole = latents.read_bytes()
    os.truncate(latents, 100)
    prepare_first_stage(published_at(published), images(8, 16), workspace)
    assert latents.read_bytes() == whole


def test_encoding_goes_on_where_it_was_stopped(
    workspace: Workspace, published: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = images(80, 16)  # 60 for training: three whole batches and an incomplete one
    settings = published_at(published)
    encoded: list[int] = []

    def prepare(workspace: Workspace, *, stop_after: int) -> FirstStage:
        encoded.clear()

        def counted(autoencoder: Any, data: Data, items: Any, **rest: Any) -> torch.Tensor:
            if len(items) > 1:  # not the one whose shape is looked at
                encoded.append(len(items))
            if len(encoded) > stop_after:
                raise KeyboardInterrupt
            return encode(autoencoder, data, items, **rest)

        monkeypatch.setattr(first_stage, "encode", counted)
        return prepare_first_stage(settings, data, workspace)

    with pytest.raises(KeyboardInterrupt):
        prepare(workspace, stop_after=2)
    (unfinished,) = workspace.cache.root.glob("ldm-latents-*.partial/train")
    with unfinished.open("ab") as file:
        file.write(b"torn")
    stage = prepare(workspace, stop_after=9)
    assert encoded == [16, 12, 16, 4]
    elsewhere = Workspace(torch.device("cpu"), Cache(tmp_path / "another cache"))
    uninterrupted = prepare(elsewhere, stop_after=9)
    for split in ("train", "validation"):
        assert torch.equal(stage.latents[split], uninterrupted.latents[split])
    assert stage.metadata == uninterrupted.metadata
    prepare(workspace, stop_after=0)  # everything is there


@pytest.mark.parametrize("stop", [1, 5, 6, 10])
@pytest.mark.parametrize("damaged", [False, True])
def test_training_goes_on_where_it_was_stopped(
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    stop: int,
    damaged: bool,
) -> None:
    data = images(40, 16)
    settings = AutoencoderSettings(**SMALL | {"steps": 10, "batch_size": 4})
    stage = LatentDiffusionSettings(autoencoder=settings)
    taken: list[int] = []
    take = torch.optim.Adam.step

    def step(self: torch.optim.Adam, *rest: Any) -> Any:
        taken.append(len(taken))
        if len(taken) == stop:
            signal.raise_signal(signal.SIGINT)
        return take(self, *rest)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            prepare_first_stage(stage, data, workspace)
    finally:
        signal.signal(signal.SIGINT, before)
    (saved,) = workspace.cache.root.glob("ldm-first-stage-*.partial/training.pt")
    if damaged:
        content = bytearray(saved.read_bytes())
        content[len(content) // 2] ^= 1
        saved.write_bytes(content)
    taken[:] = [0] * 100
    resumed = prepare_first_stage(stage, data, workspace)
    assert len(taken) - 100 == (10 if damaged else 10 - stop)
    elsewhere = Workspace(torch.device("cpu"), Cache(tmp_path / "another cache"))
    uninterrupted = prepare_first_stage(stage, data, elsewhere)
    for one, other in zip(
        resumed.autoencoder.parameters(), uninterrupted.autoencoder.parameters(), strict=True
    ):
        assert torch.equal(one, other)
    assert resumed.metadata == uninterrupted.metadata
    (folder,) = workspace.cache.root.glob("ldm-first-stage-*[0-9a-f]")
    assert {path.name for path in folder.iterdir()} == {"autoencoder", "key.json", "checksums.json"}


@pytest.mark.slow
def test_vq_f4_at_its_real_size(workspace: Workspace, tmp_path: Path) -> None:
    torch.manual_seed(0)
    autoencoder = build_autoencoder(AutoencoderSettings(), channels=3)
    assert autoencoder.num_parameters() == 55_322_782
    autoencoder.save_pretrained(tmp_path / "vq-f4")
    settings = LatentDiffusionSettings(first_stage=str(tmp_path / "vq-f4"))
    stage = prepare_first_stage(settings, images(1, 256), workspace)
    assert stage.latents["train"].shape == (1, 3, 64, 64)

    codes = stage.autoencoder.quantize.embedding.weight
    assert codes.shape == (8192, 3)
    latents = stage.latents["train"]
    distances = torch.cdist(latents.movedim(1, -1).flatten(0, -2), codes)
    nearest = codes[distances.argmin(dim=1)].view(1, 64, 64, 3).movedim(-1, 1)
    with torch.no_grad():
        pixels = stage.autoencoder.decode(nearest, force_not_quantize=True).sample
    expected = ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    decoded = stage.decode(latents * stage.scaling_factor)
    assert decoded.shape == (1, 3, 256, 256)
    assert (decoded.int() - expected.int()).abs().max() <= 1
