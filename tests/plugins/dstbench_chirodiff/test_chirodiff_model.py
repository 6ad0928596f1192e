"""ChiroDiff: representations, loss, batches, sampling."""

import math
import sys
from pathlib import Path
from subprocess import run
from typing import Any

import numpy as np
import pytest
import torch
from chirodiff_sketches import CPU, circle, seeded, tiny_data, tiny_model, zigzag
from dstbench_chirodiff import dstbench_models
from dstbench_chirodiff.diffusion import Diffusion
from dstbench_chirodiff.model import POOL, Batch, ChiroDiff, to_sequence, to_sketch
from dstbench_chirodiff.settings import ChiroDiffSettings
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydantic import ValidationError
from torch import Tensor, nn

from dstbench.cache import Cache
from dstbench.contracts import Data, Items, Pictures, Workspace
from dstbench.errors import DataError, DivergedError

BOTH = pytest.mark.parametrize("representation", ["absolute", "velocity"])


def test_plugin_offers_the_model() -> None:
    assert dstbench_models() == [ChiroDiff]
    assert (ChiroDiff.name, ChiroDiff.accepts) == ("chirodiff", "sketches")


def test_listing_the_plugin_imports_no_other_plugin_and_nothing_slow() -> None:
    code = (
        "import sys, dstbench_chirodiff as plugin; plugin.dstbench_models(); "
        "slow = {'diffusers', 'sklearn', 'torch_fidelity', 'dstbench_sketches'}; "
        "sys.exit(bool(slow & set(sys.modules)))"
    )
    assert run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampling_steps": 300}, "it must divide diffusion_steps, 1000"),
        ({"representation": "polar"}, "'velocity' or 'absolute'"),
        ({"units": 0}, "greater than or equal to 1"),
        ({"size": "mnist"}, "'vmnist', 'kanjivg' or 'quickdraw'"),
        ({"variance_strength": 1.5}, "less than or equal to 1"),
        ({"diffusion_steps": 20, "sampling_steps": 20}, "greater than or equal to 21"),
        ({"sampler": "plms"}, "'ddpm' or 'ddim'"),
        ({"timestep_spacing": "linspace"}, "'trailing' or 'leading'"),
        ({"unit": 3}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ChiroDiffSettings(**settings)


def test_a_size_is_a_name_for_layers_and_units() -> None:
    named = ChiroDiffSettings(size="quickdraw")
    assert (named.layers, named.units) == (3, 128)
    assert ChiroDiffSettings(size="kanjivg").model_dump() == ChiroDiffSettings().model_dump()
    assert ChiroDiffSettings(**named.model_dump()).units == 128
    narrow = ChiroDiffSettings(size="vmnist", units=8)
    assert (narrow.layers, narrow.units) == (2, 8)


def test_sketch_of_one_point_is_refused(cache: Cache) -> None:
    data = Data([circle(5), torch.zeros(1, 3)], [], "short", torch.stack)
    with pytest.raises(DataError, match=r"sketch 1 of the train split has 1 point"):
        tiny_model(cache, data)


# Representations


def test_representations_worked_by_hand() -> None:
    sketch = torch.tensor([[0.0, 0.0, 0.0], [3.0, 1.0, 1.0], [2.0, 5.0, 1.0]])
    assert to_sequence(sketch, "absolute").tolist() == [[3, 1, 1], [2, 5, 1]]
    assert to_sequence(sketch, "velocity").tolist() == [[3, 1, 1], [-1, 4, 1]]


def test_pen_is_lifted_above_four_fifths() -> None:
    sequence = torch.tensor([[1.0, 2.0, 0.79], [1.0, 1.0, 0.81], [0.0, 1.0, -3.0]])
    assert to_sketch(sequence, "absolute").tolist() == [[0, 0, 0], [1, 2, 0], [1, 1, 1], [0, 1, 0]]
    assert to_sketch(sequence, "velocity").tolist() == [[0, 0, 0], [1, 2, 0], [2, 3, 1], [2, 4, 0]]


@BOTH
@given(
    places=arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 30), st.just(2)),
        elements=st.floats(-10, 10, width=32),
    ),
    data=st.data(),
)
def test_sketches_survive_both_representations(
    representation: str, places: np.ndarray, data: st.DataObject
) -> None:
    pens = data.draw(arrays.arrays(np.float32, (len(places), 1), elements=st.sampled_from([0, 1])))
    drawn = torch.from_numpy(np.concatenate([places, pens], axis=1))
    sketch = torch.cat([torch.zeros(1, 3), drawn])
    again = to_sketch(to_sequence(sketch, representation), representation)
    torch.testing.assert_close(again, sketch, rtol=0, atol=1e-4)


# Noise


def test_the_outline_is_the_models(cache: Cache) -> None:
    model = tiny_model(cache, tiny_data(range(9, 10)))
    outline = ChiroDiff.outline(model.settings, Items((9, 3)))
    shapes = [
        {n: p.shape for n, p in d.named_parameters()} for d in (outline.denoiser, model.build())
    ]
    assert shapes[0] == shapes[1]
    assert all(map(torch.equal, outline.inputs, model.example()))
    assert outline.calls_per_sample == model.calls_per_sample
    with torch.device("meta"):
        _, lengths, _ = ChiroDiff.outline(model.settings, Items((9, 3))).inputs
    assert lengths.tolist() == [8], "on the CPU in any case"


def test_noise_schedule_is_the_papers() -> None:
    betas = np.linspace(1e-4, 2e-2, 1000)
    signal = np.concatenate([[1], np.cumprod(1 - betas)])
    np.testing.assert_allclose(Diffusion(1000).signal.numpy(), signal, rtol=1e-12)
    fewer = Diffusion(50).signal.numpy()
    np.testing.assert_allclose(1 - fewer[1:] / fewer[:-1], np.linspace(2e-3, 0.4, 50), rtol=1e-12)


def test_denoising_in_every_step_is_that_of_ddpm() -> None:
    """Ho et al., algorithm 2, with β̃ as the variance."""
    betas = np.linspace(1e-4, 2e-2, 1000)
    signal = np.cumprod(1 - betas)
    points, noise = torch.randn(2, 1, 4, 3, generator=seeded(), dtype=torch.float64)
    t = 700
    beta, now, then = betas[t - 1], signal[t - 1], signal[t - 2]
    mean = (points - beta / math.sqrt(1 - now) * noise) / math.sqrt(1 - beta)
    deviation = math.sqrt((1 - then) / (1 - now) * beta)
    ours, spread = Diffusion(1000).denoised(points, noise, t, t - 1)
    torch.testing.assert_close(ours, mean)
    assert spread == pytest.approx(deviation)


def test_levels_go_from_the_last_noise_to_none() -> None:
    assert list(Diffusion(100).levels(4)) == [(100, 75), (75, 50), (50, 25), (25, 0)]


def test_leading_levels_end_at_the_first_noise() -> None:
    diffusion = Diffusion(100)
    assert list(diffusion.levels(4, leading=True)) == [(76, 51), (51, 26), (26, 1), (1, 0)]
    assert list(diffusion.levels(100, leading=True)) == list(diffusion.levels(100))


@pytest.mark.parametrize(("step", "to"), [(1000, 950), (700, 699), (50, 0), (1, 0)])
def test_ddim_with_eta_1_is_ancestral_sampling(step: int, to: int) -> None:
    points, noise = torch.randn(2, 1, 4, 3, generator=seeded(), dtype=torch.float64)
    ddim, ddim_spread = Diffusion(1000).denoised_by_ddim(points, noise, step, to, eta=1)
    ddpm, ddpm_spread = Diffusion(1000).denoised(points, noise, step, to)
    torch.testing.assert_close(ddim, ddpm)
    assert ddim_spread == pytest.approx(ddpm_spread)


def test_ddim_with_eta_0_follows_the_noise() -> None:
    """Points of any clean sketch and noise are led to the same ones at the earlier step."""
    clean, noise = torch.randn(2, 1, 4, 3, generator=seeded(), dtype=torch.float64)
    diffusion = Diffusion(1000)
    noisy = diffusion.noisy(clean, noise, torch.tensor([800]))
    earlier, spread = diffusion.denoised_by_ddim(noisy, noise, 800, 600, eta=0)
    torch.testing.assert_close(earlier, diffusion.noisy(clean, noise, torch.tensor([600])))
    assert spread == 0


# Loss


class Recorded(nn.Module):
    """Predicts fixed numbers and keeps what it was asked."""

    def forward(self, points: Tensor, lengths: Tensor, times: Tensor) -> Tensor:
        self.asked = points, lengths, times
        return torch.full_like(points, 0.5)


@BOTH
def test_loss_is_the_mean_over_each_sequence_then_over_sequences(
    cache: Cache, representation: str
) -> None:
    model = tiny_model(cache, representation=representation)
    batch = model.batch("train", torch.tensor([7, 0, 3]))
    denoiser = Recorded()
    loss = model.loss(denoiser, batch, seeded())

    rng = seeded()
    steps = torch.randint(1, 1001, (3,), generator=rng)
    noises = torch.randn(12 + 5 + 8, 3, generator=rng).split([12, 5, 8])
    kept = np.concatenate([[1], np.cumprod(1 - np.linspace(1e-4, 2e-2, 1000))])[steps]
    per_sequence = []
    for i, (index, noise) in enumerate(zip([7, 0, 3], noises, strict=True)):
        clean = to_sequence(tiny_data().train[index], representation)
        noisy = math.sqrt(kept[i]) * clean + math.sqrt(1 - kept[i]) * noise
        torch.testing.assert_close(denoiser.asked[0][i, : len(noise)], noisy.float())
        per_sequence.append(float((0.5 - noise).square().mean()))
    assert loss.item() == pytest.approx(sum(per_sequence) / 3, rel=1e-6)
    assert denoiser.asked[1].tolist() == [12, 5, 8]
    torch.testing.assert_close(denoiser.asked[2], steps / 1000)


@BOTH
def test_padding_changes_neither_loss_nor_gradients(cache: Cache, representation: str) -> None:
    model = tiny_model(cache, representation=representation)
    torch.manual_seed(0)
    denoiser = model.build()
    batch = model.batch("train", torch.tensor([7, 0, 3]))
    garbage = 1e3 * torch.randn(3, 5, 3, generator=seeded(1))
    padded = Batch(torch.cat([batch.points, garbage], dim=1), batch.lengths)
    padded.points[1, 5:] = 77
    results = []
    for each in batch, padded:
        loss = model.loss(denoiser, each, seeded())
        results.append([loss, *torch.autograd.grad(loss, list(denoiser.parameters()))])
    for tight, loose in zip(*results, strict=True):
        torch.testing.assert_close(tight, loose, rtol=1e-5, atol=1e-7)


def test_loss_depends_on_the_generator_alone(cache: Cache) -> None:
    model = tiny_model(cache)
    denoiser = model.build()
    batch = model.batch("validation", torch.arange(3))
    first = model.loss(denoiser, batch, seeded(5)).item()
    torch.manual_seed(9)
    assert model.loss(denoiser, batch, seeded(5)).item() == first
    assert model.loss(denoiser, batch, seeded(6)).item() != first


# Batches


@given(size=st.integers(1, 20), count=st.integers(0, 60), seed=st.integers(0, 9))
def test_batches_are_full_and_repeat_no_example(size: int, count: int, seed: int) -> None:
    model = object.__new__(ChiroDiff)
    model.lengths = torch.randint(2, 40, (size + count,), generator=seeded(1))
    batches = model.batches(size, seeded(seed))
    assert [len(batch) for batch in batches] == [size] * ((size + count) // size)
    used = torch.cat(list(batches)).tolist()
    assert len(set(used)) == len(used)
    assert set(used) <= set(range(size + count))
    assert used == torch.cat(list(model.batches(size, seeded(seed)))).tolist()


def test_batches_hold_sketches_of_about_the_same_length(cache: Cache) -> None:
    lengths = torch.randint(5, 100, (1024,), generator=seeded()).tolist()
    model = tiny_model(cache, Data([zigzag(n) for n in lengths], [], "many", torch.stack))
    batches = model.batches(16, seeded())
    padded = sum(16 * int(model.lengths[batch].max()) for batch in batches)
    needed = int(model.lengths.sum())
    assert padded / needed < 1.1
    means = torch.stack([model.lengths[batch].double().mean() for batch in batches])
    assert abs(float(torch.corrcoef(torch.stack([means[:-1], means[1:]]))[0, 1])) < 0.4
    assert len(batches) > POOL


# Sampling


class Oracle(nn.Module):
    """The exact noise where all data are one sketch."""

    def __init__(self, sequence: Tensor, signal: Tensor) -> None:
        super().__init__()
        self.sequence, self.signal = sequence, signal

    def forward(self, points: Tensor, lengths: Tensor, times: Tensor) -> Tensor:
        kept = self.signal[(times * 1000).round().long()].float().view(-1, 1, 1)
        return (points - kept.sqrt() * self.sequence) / (1 - kept).sqrt()


@BOTH
@pytest.mark.parametrize("sampling_steps", [1, 10])
def test_perfect_denoiser_has_no_loss_and_recovers_the_sketch(
    cache: Cache, representation: str, sampling_steps: int
) -> None:
    sketch = zigzag(12)
    data = Data([sketch] * 4, [], "one", torch.stack)
    model = tiny_model(cache, data, representation=representation, sampling_steps=sampling_steps)
    oracle = Oracle(to_sequence(sketch, representation), model.diffusion.signal)
    assert model.loss(oracle, model.batch("train", torch.arange(4)), seeded()).item() < 1e-5
    for sample in model.sample(oracle, count=3, batch_size=2, rng=seeded()):
        torch.testing.assert_close(sample, sketch, rtol=0, atol=1e-3)


@BOTH
def test_samples_are_sketches_with_lengths_of_the_data(cache: Cache, representation: str) -> None:
    lengths = [5, 5, 5, 9]
    data = Data([circle(n) for n in lengths], [], "lengths", torch.stack)
    model = tiny_model(cache, data, representation=representation, sampling_steps=1)
    torch.manual_seed(0)
    samples = model.sample(model.build(), count=400, batch_size=64, rng=seeded())
    assert [s.dtype for s in samples] == [torch.float32] * 400
    assert all(s[0].tolist() == [0, 0, 0] for s in samples)
    assert all(((s[:, 2] == 0) | (s[:, 2] == 1)).all() for s in samples)
    drawn = [len(s) for s in samples]
    assert set(drawn) == {5, 9}
    assert drawn.count(5) == pytest.approx(300, abs=45)  # five standard deviations


@BOTH
@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_samples_depend_on_the_seed_and_not_on_the_batch_size(
    cache: Cache, representation: str, sampler: str
) -> None:
    model = tiny_model(cache, representation=representation, sampler=sampler)
    torch.manual_seed(0)
    denoiser = model.build()

    def sample(batch_size: int, seed: int, count: int = 7) -> Tensor:
        return torch.cat(list(model.sample(denoiser, count, batch_size, seeded(seed))))

    once = sample(7, seed=0)
    assert torch.equal(once, sample(7, seed=0))
    torch.testing.assert_close(sample(2, seed=0), once, rtol=1e-3, atol=1e-3)
    few = sample(2, seed=0, count=2)
    torch.testing.assert_close(few, once[: len(few)], rtol=1e-3, atol=1e-3)
    other = sample(7, seed=1)
    assert other.shape != once.shape or not torch.allclose(other, once)


def test_variance_strength_scales_the_noise_of_sampling(cache: Cache) -> None:
    class Still(nn.Module):
        def forward(self, points: Tensor, lengths: Tensor, times: Tensor) -> Tensor:
            return torch.zeros_like(points)

    def places(strength: float) -> Tensor:
        data = Data([circle(50)], [], "one", torch.stack)
        model = tiny_model(
            cache, data, representation="absolute", sampling_steps=2, variance_strength=strength
        )
        samples = model.sample(Still(), count=40, batch_size=40, rng=seeded())
        return torch.cat([sample[1:, :2] for sample in samples])

    added = places(1) - places(0)
    torch.testing.assert_close(places(0.5), places(0) + added / 2, rtol=1e-4, atol=1e-3)
    diffusion = Diffusion(1000)
    _, deviation = diffusion.denoised(torch.zeros(1), torch.zeros(1), 1000, 500)
    # The second of the two steps divides by √ᾱ of noise step 500.
    expected = deviation / float(diffusion.signal[500]) ** 0.5
    assert added.std() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("training", [True, False])
def test_sampling_evaluates_and_restores_the_mode(cache: Cache, training: bool) -> None:
    modes: list[bool] = []

    class Watched(nn.Module):
        def forward(self, points: Tensor, lengths: Tensor, times: Tensor) -> Tensor:
            modes.append(self.training)
            return points

    model = tiny_model(cache)
    watched = Watched().train(training)
    model.sample(watched, count=2, batch_size=2, rng=seeded())
    assert modes == [False] * model.calls_per_sample == [False] * 5
    assert watched.training is training


def test_samples_that_are_not_finite_are_refused(cache: Cache) -> None:
    class Broken(nn.Module):
        def forward(self, points: Tensor, lengths: Tensor, times: Tensor) -> Tensor:
            return points / 0

    with pytest.raises(DivergedError, match="diverged"):
        tiny_model(cache).sample(Broken(), count=1, batch_size=1, rng=seeded())


def test_everything_is_on_the_workspace_device(cache: Cache) -> None:
    model = tiny_model(cache)
    assert {p.device for p in model.build().parameters()} == {CPU}
    assert model.batch("train", torch.tensor([0])).points.device == CPU


@pytest.mark.parametrize("lengths", [[], [0, 5], [5, 10**7], [[5, 6]]])
def test_foreign_lengths_that_cannot_be_are_refused(lengths: list[Any]) -> None:
    data = Data.blank((6, 3), torch.float32, Pictures())
    workspace = Workspace(CPU, Cache(Path("nowhere")))
    state = {"lengths": torch.tensor(lengths, dtype=torch.int32)}
    with pytest.raises(ValueError, match="lengths are from 1 to"):
        ChiroDiff.for_sampling(ChiroDiffSettings(), data, state, workspace)


def test_narrower_networks_have_fewer_units() -> None:
    settings = ChiroDiffSettings(size="kanjivg", representation="absolute")
    found = ChiroDiff.narrower(settings)
    assert [each.units for each in found] == list(range(1, 97))
    assert {(each.layers, each.representation) for each in found} == {(3, "absolute")}
    assert len(ChiroDiff.narrower(ChiroDiffSettings(units=10**9))) == 1000
