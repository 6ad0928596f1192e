"""DDIM's noise levels and fresh noise, and the settings that make training as published."""

from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from dstbench_ldm import first_stage
from dstbench_ldm.denoiser import build_denoiser
from dstbench_ldm.model import LatentDiffusion
from dstbench_ldm.sampling import build_scheduler
from dstbench_ldm.settings import LatentDiffusionSettings
from pydantic import ValidationError
from test_ldm_model import CPU, SETTINGS, images, seeded
from torch import Tensor, nn

from dstbench.cache import Cache
from dstbench.contracts import Workspace


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


def make(cache: Cache, **changed: Any) -> LatentDiffusion:
    return LatentDiffusion(SETTINGS.model_copy(update=changed), images(), Workspace(CPU, cache))


def built(model: LatentDiffusion) -> nn.Module:
    torch.manual_seed(0)
    return model.build()


def levels(**changed: Any) -> list[int]:
    settings = LatentDiffusionSettings(**{"diffusion_steps": 1000, "sampling_steps": 200} | changed)
    return [int(step) for step in build_scheduler(settings).timesteps]


def test_trailing_levels_begin_with_the_last() -> None:
    assert levels() == list(range(999, 0, -5))


def test_leading_levels_are_those_of_the_published_code() -> None:
    """From 1 + 995 down to 1, counted from 0."""
    assert levels(timestep_spacing="leading") == list(range(996, 0, -5))


@pytest.mark.parametrize("spacing", ["trailing", "leading"])
def test_all_levels_are_all_levels(spacing: str) -> None:
    assert levels(timestep_spacing=spacing, sampling_steps=1000) == list(range(999, -1, -1))


def posterior(settings: LatentDiffusionSettings, step: int) -> tuple[Tensor, Tensor]:
    """The factors of x₀ and xₜ in the mean of DDPM's posterior, and its variance (Ho et al.,
    equations 6 and 7), with the steps down to the next level taken at once."""
    scheduler = build_scheduler(settings)
    signal = scheduler.alphas_cumprod.double()
    before = step - settings.diffusion_steps // settings.sampling_steps
    now, then = signal[step], signal[before] if before >= 0 else scheduler.final_alpha_cumprod
    kept = now / then
    means = torch.stack(
        [then.sqrt() * (1 - kept) / (1 - now), kept.sqrt() * (1 - then) / (1 - now)]
    )
    return means, (1 - then) / (1 - now) * (1 - kept)


@pytest.mark.parametrize("spacing", ["trailing", "leading"])
def test_eta_1_is_the_posterior_of_ddpm(spacing: str) -> None:
    settings = LatentDiffusionSettings(timestep_spacing=spacing, sampling_steps=50)
    scheduler = build_scheduler(settings)
    signal = scheduler.alphas_cumprod
    clean, noise = torch.randn(2, 100_000, generator=seeded())
    fresh = torch.randn(100_000, generator=seeded(1))
    for step in (981, 501, 21) if spacing == "leading" else (999, 499, 19):
        noisy = signal[step].sqrt() * clean + (1 - signal[step]).sqrt() * noise
        taken = scheduler.step(noise, step, noisy, eta=1.0, variance_noise=fresh).prev_sample
        (of_clean, of_noisy), variance = posterior(settings, step)
        expected = of_clean * clean + of_noisy * noisy + variance.sqrt() * fresh
        torch.testing.assert_close(taken, expected.float(), rtol=1e-4, atol=1e-4)


def test_the_last_trailing_step_adds_no_noise() -> None:
    settings = LatentDiffusionSettings(sampling_steps=50)
    _, variance = posterior(settings, int(build_scheduler(settings).timesteps[-1]))
    assert variance == 0


def test_fresh_noise_does_not_depend_on_the_batch_or_the_number_of_samples(cache: Cache) -> None:
    model = make(cache, eta=1.0)
    denoiser = built(model)

    def sample(count: int, batch_size: int, seed: int = 0) -> Tensor:
        return model.sample(denoiser, count, batch_size, seeded(seed)).int()

    assert torch.equal(sample(8, 8), sample(8, 8))
    assert (sample(8, 3) - sample(8, 8)).abs().max() <= 1
    assert (sample(4, 4) - sample(8, 8)[:4]).abs().max() <= 1
    assert (sample(8, 8, seed=1) - sample(8, 8)).abs().max() > 1


def test_eta_changes_no_noise_that_samples_start_from(cache: Cache) -> None:
    starts: list[Tensor] = []

    class First(nn.Module):
        def forward(self, latents: Tensor, steps: Tensor) -> Tensor:
            starts.append(latents)
            return torch.zeros_like(latents)

    samples = [make(cache, eta=eta).sample(First(), 3, 3, seeded()) for eta in (0.0, 0.5, 1.0)]
    assert torch.equal(starts[0], starts[5])
    assert torch.equal(starts[0], starts[10])
    assert not torch.equal(samples[0], samples[2])


def test_each_sample_has_fresh_noise_of_its_own(cache: Cache) -> None:
    seen: list[Tensor] = []

    class Silent(nn.Module):
        def forward(self, latents: Tensor, steps: Tensor) -> Tensor:
            seen.append(latents)
            return latents * 0

    model = make(cache, eta=1.0)
    model.sample(Silent(), 2, 2, seeded())
    signal = [
        float(model.objective.scheduler.alphas_cumprod[i])
        for i in model.objective.scheduler.timesteps
    ]
    added = seen[1] - (signal[1] / signal[0]) ** 0.5 * seen[0]
    assert not torch.equal(added[0], added[1])
    assert added.std() > 0.1


def test_a_zero_initialised_network_predicts_nothing_yet(cache: Cache) -> None:
    plain, zeroed = built(make(cache)), built(make(cache, zero_init=True))
    latents, steps = make(cache).example()
    assert not zeroed(torch.randn_like(latents), steps).any()
    zero = {name for name, value in zeroed.named_parameters() if not value.any()}
    zero -= {name for name, value in plain.named_parameters() if not value.any()}
    modules = dict(zeroed.named_modules())
    expected = {
        f"{name}.conv2" for name, each in modules.items() if isinstance(each, ResnetBlock2D)
    }
    expected |= {
        f"{name}.to_out.0" for name, each in modules.items() if isinstance(each, Attention)
    }
    expected |= {"conv_out"}
    assert zero == {f"{name}.{part}" for name in expected for part in ("weight", "bias")}
    for name, value in zeroed.named_parameters():
        assert name in zero or torch.equal(value, plain.get_parameter(name))


def test_a_zero_initialised_network_can_be_outlined() -> None:
    with torch.device("meta"):
        assert build_denoiser(LatentDiffusionSettings(zero_init=True)).conv_out.weight.is_meta


def test_a_latent_scale_of_one_leaves_latents_as_they_are(cache: Cache) -> None:
    model = make(cache, latent_scale=1.0)
    everything = torch.arange(20)
    assert torch.equal(model.batch("train", everything), model.first_stage.latents["train"])
    assert model.metadata()["scaling_factor"] == 1
    assert make(cache).batch("train", everything).std() == pytest.approx(1, abs=1e-5)


def test_flipped_latents_are_those_of_flipped_images(cache: Cache) -> None:
    plain, model = make(cache), make(cache, horizontal_flip=True)
    mirrored = torch.stack([image.flip(-1) for image in model.data.train])
    with torch.no_grad():
        latents = model.first_stage.autoencoder.encode(mirrored / 127.5 - 1).latents
    pairs = model.batch("train", torch.arange(20))
    torch.testing.assert_close(pairs[:, 1], latents * model.first_stage.scaling_factor)
    assert torch.equal(pairs[:, 0], plain.batch("train", torch.arange(20)))
    assert not torch.allclose(pairs[:, 1], pairs[:, 0].flip(-1))  # encoders know left from right


def test_flips_follow_from_the_steps_generator_alone(cache: Cache) -> None:
    """The loss sees what its generator's third draw says, under the same noise as without flips."""
    plain, model = make(cache), make(cache, horizontal_flip=True)
    denoiser, pairs = built(model), model.batch("train", torch.arange(12))
    rng = seeded(3)
    torch.randint(1000, (12,), generator=rng)
    torch.randn(12, 3, 8, 8, generator=rng)
    chosen = torch.randint(2, (12,), generator=rng)
    assert 0 < int(chosen.sum()) < 12
    seen = torch.stack([pair[int(which)] for pair, which in zip(pairs, chosen, strict=True)])
    expected = plain.loss(denoiser, seen, seeded(3))
    assert torch.equal(model.loss(denoiser, pairs, seeded(3)), expected)
    assert not torch.equal(model.loss(denoiser, pairs, seeded(4)), expected)


def test_validation_and_the_scale_know_no_flips(cache: Cache) -> None:
    plain, model = make(cache), make(cache, horizontal_flip=True)
    indices = torch.arange(10)
    assert torch.equal(plain.batch("validation", indices), model.batch("validation", indices))
    assert plain.metadata() == model.metadata()


def test_reconstructions_know_no_flips(cache: Cache) -> None:
    plain, model = make(cache), make(cache, horizontal_flip=True)
    indices = torch.arange(5)
    for split in ("train", "validation"):
        found = model.reconstructions(split, indices)
        assert torch.equal(found, plain.reconstructions(split, indices))
        assert torch.equal(found, plain.first_stage.decode(plain.batch(split, indices)))


def test_mirrored_latents_are_made_once(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    before = make(cache, horizontal_flip=True).first_stage.mirrored

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(first_stage, "encode", refuse)
    after = make(cache, horizontal_flip=True).first_stage.mirrored
    assert before is not None
    assert after is not None
    assert torch.equal(before, after)
    assert make(cache).first_stage.mirrored is None


def test_settings_at_their_defaults_are_not_written_down() -> None:
    later = {"eta", "timestep_spacing", "zero_init", "horizontal_flip", "latent_scale"}
    assert not LatentDiffusionSettings().model_dump().keys() & later
    changed = {
        "eta": 1.0,
        "timestep_spacing": "leading",
        "zero_init": True,
        "horizontal_flip": True,
        "latent_scale": 1.0,
    }
    assert LatentDiffusionSettings(**changed).model_dump().items() >= changed.items()


@pytest.mark.parametrize(
    "settings",
    [
        {"eta": 1.5},
        {"eta": -0.1},
        {"timestep_spacing": "linspace"},
        {"latent_scale": 0},
        {"latent_scale": "mean"},
    ],
)
def test_what_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LatentDiffusionSettings(**settings)
