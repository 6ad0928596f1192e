"""The latent diffusion model: first stage, loss, sampling."""

import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import run

import numpy as np
import pytest
import torch
from dstbench_ldm import dstbench_models, first_stage
from dstbench_ldm.model import LatentDiffusion
from dstbench_ldm.settings import AutoencoderSettings, LatentDiffusionSettings
from torch import Tensor, nn

from dstbench.cache import Cache
from dstbench.contracts import Data, Items, Workspace
from dstbench.errors import ConfigError, DivergedError

CPU = torch.device("cpu")

SETTINGS = LatentDiffusionSettings(
    autoencoder=AutoencoderSettings(
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        codes=16,
        steps=6,
        batch_size=4,
        learning_rate=1e-3,
    ),
    block_out_channels=(8, 16),
    attention=(False, True),
    attention_head_dim=8,
    layers_per_block=1,
    norm_num_groups=4,
    sampling_steps=5,
)


def images(size: int = 16, channels: int = 1) -> Data:
    content = torch.randint(
        256,
        (30, channels, size, size),
        generator=torch.Generator().manual_seed(0),
        dtype=torch.uint8,
    )
    return Data(list(content[:20]), list(content[20:]), f"random-{size}-{channels}", torch.stack)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def model(cache: Cache) -> LatentDiffusion:
    return LatentDiffusion(SETTINGS, images(), Workspace(CPU, cache))


@pytest.fixture
def denoiser(model: LatentDiffusion) -> nn.Module:
    torch.manual_seed(0)
    return model.build()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Oracle(nn.Module):
    """The exact noise prediction where all data are one point."""

    def __init__(self, point: Tensor, signal: Tensor) -> None:
        super().__init__()
        self.point, self.signal = point, signal

    def forward(self, latents: Tensor, steps: Tensor) -> Tensor:
        signal = self.signal[steps].float().view(-1, 1, 1, 1)
        return (latents - signal.sqrt() * self.point) / (1 - signal).sqrt()


def signal() -> Tensor:
    """ᾱ of the scaled-linear schedule, by its definition."""
    betas = np.linspace(0.0015**0.5, 0.0195**0.5, 1000) ** 2
    return torch.from_numpy(np.cumprod(1 - betas))


def test_plugin_offers_the_model() -> None:
    assert dstbench_models() == [LatentDiffusion]
    assert (LatentDiffusion.name, LatentDiffusion.accepts) == ("ldm", "images")


def test_listing_the_plugin_does_not_import_diffusers() -> None:
    code = (
        "import sys, dstbench_ldm as plugin; plugin.dstbench_models(); "
        "sys.exit('diffusers' in sys.modules)"
    )
    assert run([sys.executable, "-c", code], check=False).returncode == 0


def test_first_stage_is_trained_once(
    model: LatentDiffusion, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(first_stage, "train_autoencoder", refuse)
    again = LatentDiffusion(
        SETTINGS.model_copy(update={"sampling_steps": 2}), images(), Workspace(CPU, cache)
    )
    for name in "train", "validation":
        assert torch.equal(again.first_stage.latents[name], model.first_stage.latents[name])
    assert again.metadata() == model.metadata()

    for other_data, other_settings in [
        (images(size=32), SETTINGS),
        (images(), SETTINGS.model_copy(update={"autoencoder": autoencoder_with(seed=1)})),
    ]:
        with pytest.raises(AssertionError, match="trained again"):
            LatentDiffusion(other_settings, other_data, Workspace(CPU, cache))


def autoencoder_with(**changes: int) -> AutoencoderSettings:
    return SETTINGS.autoencoder.model_copy(update=changes)


def test_training_the_first_stage_is_reproducible_and_reported(
    model: LatentDiffusion, tmp_path: Path
) -> None:
    messages: list[str] = []
    torch.manual_seed(123)
    elsewhere = LatentDiffusion(
        SETTINGS, images(), Workspace(CPU, Cache(tmp_path), messages.append)
    )
    for name in "train", "validation":
        assert torch.equal(elsewhere.first_stage.latents[name], model.first_stage.latents[name])
    assert any("step 6/6" in message for message in messages)


@pytest.mark.parametrize("cached", [True, False])
def test_first_stage_leaves_the_global_generator_alone(
    model: LatentDiffusion, cache: Cache, tmp_path: Path, cached: bool
) -> None:
    torch.manual_seed(7)
    expected = torch.rand(4)
    torch.manual_seed(7)
    LatentDiffusion(SETTINGS, images(), Workspace(CPU, cache if cached else Cache(tmp_path)))
    assert torch.equal(torch.rand(4), expected)


def test_first_stage_learns(tmp_path: Path) -> None:
    """On constant images, a little training comes near them; none at all does not."""
    shades = torch.linspace(0, 255, 20).to(torch.uint8)[:, None, None, None].expand(20, 1, 8, 8)
    data = Data(list(shades), list(shades), "shades", torch.stack)
    errors = {}
    for steps in 2, 80:
        settings = SETTINGS.model_copy(
            update={"autoencoder": autoencoder_with(steps=steps, batch_size=16, codes=64)}
        )
        model = LatentDiffusion(settings, data, Workspace(CPU, Cache(tmp_path)))
        errors[steps] = model.metadata()["first_stage_rmse"]
    assert errors[80] < 0.5 * errors[2]


def test_first_stage_that_diverges_is_not_cached(tmp_path: Path) -> None:
    diverging = SETTINGS.autoencoder.model_copy(update={"learning_rate": 1e30})
    settings = SETTINGS.model_copy(update={"autoencoder": diverging})
    with pytest.raises(ConfigError, match=r"diverged at step \d+: autoencoder.learning_rate"):
        LatentDiffusion(settings, images(), Workspace(CPU, Cache(tmp_path)))
    assert not list(tmp_path.glob("ldm-*/key.json"))


def test_latents_have_unit_deviation_and_the_factor_is_recorded(model: LatentDiffusion) -> None:
    assert model.batch("train", torch.arange(20)).std() == pytest.approx(1, abs=1e-5)
    latents = model.first_stage.latents
    factor = model.metadata()["scaling_factor"]
    assert factor == pytest.approx(1 / float(latents["train"].std()), rel=1e-6)
    indices = torch.tensor([3, 1])
    assert torch.equal(model.batch("validation", indices), latents["validation"][indices] * factor)


def test_reconstruction_error_is_that_of_decoded_validation_images(
    model: LatentDiffusion,
) -> None:
    decoded = model.first_stage.decode(model.batch("validation", torch.arange(10)))
    originals = model.data.to_images(model.data.validation)
    assert decoded.shape == originals.shape
    assert decoded.dtype == torch.uint8
    error = (decoded.double() - originals.double()) / 255
    rmse = float(error.square().mean().sqrt())
    # A latent on the border between two codes may fall to the other side after scaling.
    assert model.metadata()["first_stage_rmse"] == pytest.approx(rmse, rel=1e-2)


def test_latents_are_quantised_before_they_are_decoded(model: LatentDiffusion) -> None:
    autoencoder = model.first_stage.autoencoder
    code = autoencoder.quantize.embedding.weight[5].view(1, -1, 1, 1).expand(1, -1, 8, 8)
    scaled = code * model.first_stage.scaling_factor
    assert torch.equal(
        model.first_stage.decode(scaled * (1 + 1e-5)), model.first_stage.decode(scaled)
    )


def test_loss_is_the_mean_squared_error_of_the_noise(
    model: LatentDiffusion, denoiser: nn.Module
) -> None:
    batch = model.batch("train", torch.arange(6))
    rng = seeded()
    steps = torch.randint(1000, (6,), generator=rng)
    noise = torch.randn(batch.shape, generator=rng)
    kept = signal()[steps].float().view(-1, 1, 1, 1)
    expected = (denoiser(kept.sqrt() * batch + (1 - kept).sqrt() * noise, steps) - noise).square()

    assert model.loss(denoiser, batch, seeded()).item() == pytest.approx(
        expected.mean().item(), rel=1e-5
    )


def test_perfect_denoiser_has_no_loss_and_recovers_the_point(model: LatentDiffusion) -> None:
    point = model.batch("train", torch.tensor([4]))
    oracle = Oracle(point, signal())

    assert model.loss(oracle, point.expand(8, -1, -1, -1), seeded()).item() < 1e-5
    samples = model.sample(oracle, count=3, batch_size=2, rng=seeded())
    difference = samples.int() - model.first_stage.decode(point).int()
    assert difference.abs().max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_are_images_of_the_dataset(cache: Cache, channels: int) -> None:
    model = LatentDiffusion(SETTINGS, images(channels=channels), Workspace(CPU, cache))
    torch.manual_seed(0)
    samples = model.sample(model.build(), count=3, batch_size=2, rng=seeded())
    assert samples.shape == (3, channels, 16, 16)
    assert samples.dtype == torch.uint8


def test_samples_depend_on_the_seed_and_not_on_the_batch_size(
    model: LatentDiffusion, denoiser: nn.Module
) -> None:
    def sample(batch_size: int, seed: int) -> Tensor:
        return model.sample(denoiser, count=8, batch_size=batch_size, rng=seeded(seed)).int()

    assert torch.equal(sample(8, seed=0), sample(8, seed=0))
    assert (sample(3, seed=0) - sample(8, seed=0)).abs().max() <= 1
    assert (sample(8, seed=1) - sample(8, seed=0)).abs().max() > 1


def test_fewer_samples_are_the_first_of_more(model: LatentDiffusion, denoiser: nn.Module) -> None:
    few = model.sample(denoiser, count=2, batch_size=2, rng=seeded())
    more = model.sample(denoiser, count=4, batch_size=2, rng=seeded())
    assert torch.equal(few, more[:2])


@pytest.mark.parametrize("training", [True, False])
def test_sampling_evaluates_and_restores_the_mode(model: LatentDiffusion, training: bool) -> None:
    modes: list[bool] = []

    class Watched(nn.Module):
        def forward(self, latents: Tensor, steps: Tensor) -> Tensor:
            modes.append(self.training)
            return latents

    watched = Watched().train(training)
    model.sample(watched, count=2, batch_size=2, rng=seeded())
    assert modes == [False] * model.calls_per_sample == [False] * 5
    assert watched.training is training


def test_samples_that_are_not_finite_are_refused(model: LatentDiffusion) -> None:
    class Broken(nn.Module):
        def forward(self, latents: Tensor, steps: Tensor) -> Tensor:
            return latents / 0

    with pytest.raises(DivergedError, match="diverged"):
        model.sample(Broken(), count=1, batch_size=1, rng=seeded())


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit:FutureWarning")
def test_denoiser_can_be_traced_on_the_example(model: LatentDiffusion, denoiser: nn.Module) -> None:
    latents, steps = model.example()
    traced: Callable[..., Tensor] = torch.jit.trace(denoiser.eval(), (latents, steps))
    assert traced(latents, steps).shape == (1, 3, 8, 8)


def test_the_outline_is_the_models(model: LatentDiffusion, denoiser: nn.Module) -> None:
    with torch.device("meta"):
        outline = LatentDiffusion.outline(SETTINGS, Items((1, 16, 16)))
    assert all(parameter.is_meta for parameter in outline.denoiser.parameters())
    shapes = [{n: p.shape for n, p in d.named_parameters()} for d in (outline.denoiser, denoiser)]
    assert shapes[0] == shapes[1]
    described = [
        [(x.shape, x.dtype) for x in inputs] for inputs in (outline.inputs, model.example())
    ]
    assert described[0] == described[1]
    assert outline.calls_per_sample == model.calls_per_sample
    with pytest.raises(ConfigError, match="images of 16×18 pixels do not fit"):
        LatentDiffusion.outline(SETTINGS, Items((1, 16, 18)))


def test_checkpointed_activations_give_the_same_gradients(cache: Cache) -> None:
    gradients = []
    for checkpointing in (False, True):
        settings = SETTINGS.model_copy(update={"activation_checkpointing": checkpointing})
        model = LatentDiffusion(settings, images(), Workspace(CPU, cache))
        torch.manual_seed(0)
        denoiser = model.build()
        assert denoiser.is_gradient_checkpointing is checkpointing
        model.loss(denoiser, model.batch("train", torch.arange(4)), seeded()).backward()
        gradients.append([parameter.grad for parameter in denoiser.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_images_that_cannot_be_halved_are_refused(cache: Cache) -> None:
    with pytest.raises(ConfigError, match=r"18×18.*multiples of 4"):
        LatentDiffusion(SETTINGS, images(size=18), Workspace(CPU, cache))


@pytest.mark.parametrize("settings", [SETTINGS, LatentDiffusionSettings()], ids=["small", "paper"])
def test_narrower_networks_keep_their_proportions(settings: LatentDiffusionSettings) -> None:
    found = LatentDiffusion.narrower(settings)
    assert found[-1] == settings
    first, *_ = settings.block_out_channels
    for each in found:
        assert LatentDiffusionSettings(**each.model_dump()) == each  # groups and heads fit
        narrowest, *_ = each.block_out_channels
        ratios = {wide * narrowest for wide in settings.block_out_channels}
        assert ratios == {narrow * first for narrow in each.block_out_channels}
        of_group = narrowest / each.norm_num_groups
        assert 1 / 2 <= of_group / (first / settings.norm_num_groups) <= 2
    widths = [each.block_out_channels for each in found]
    assert widths == sorted(widths)


def test_narrower_networks_can_be_called() -> None:
    for each in LatentDiffusion.narrower(SETTINGS):
        outline = LatentDiffusion.outline(each, Items((1, 16, 16)))
        assert outline.denoiser(*outline.inputs).shape == (1, 3, 8, 8)
