"""The denoiser, and the recurrence that trains it on a CPU."""

import pytest
import torch
from chirodiff_sketches import seeded, tiny_model
from dstbench_chirodiff.denoiser import Denoiser
from dstbench_chirodiff.recurrence import bidirectional_gru
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from dstbench.cache import Cache
from dstbench.counting.flops import flops_by_weight


def packed_gru(gru: nn.GRU, inputs: Tensor, lengths: Tensor) -> Tensor:
    """The reference: torch's own GRU on a packed sequence."""
    packed = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(gru(packed)[0], batch_first=True, total_length=inputs.shape[1])[0]


def counts(inputs: Tensor, lengths: Tensor) -> Tensor:
    return torch.arange(inputs.shape[1]) < lengths[:, None]


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    padding=st.integers(0, 3),
    layers=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_states_and_gradients_are_those_of_the_packed_gru(
    lengths: list[int], padding: int, layers: int, seed: int
) -> None:
    torch.manual_seed(seed)
    gru = nn.GRU(4, 6, layers, batch_first=True, bidirectional=True)
    lens = torch.tensor(lengths)
    inputs = torch.randn(len(lengths), max(lengths) + padding, 4)
    valid = counts(inputs, lens)
    weight = torch.randn(*inputs.shape[:2], 12)[valid]

    results = []
    for run in bidirectional_gru, packed_gru:
        leaf = inputs.clone().requires_grad_()
        states = run(gru, leaf, lens)[valid]
        gradients = torch.autograd.grad((states * weight).sum(), [leaf, *gru.parameters()])
        results.append([states, *gradients])
    for ours, reference in zip(*results, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    gru = nn.GRU(3, 2, 2, batch_first=True, bidirectional=True, dtype=torch.float64)
    lengths = torch.tensor([3, 1, 2])
    inputs = torch.randn(3, 4, 3, dtype=torch.float64, requires_grad=True)
    valid = counts(inputs, lengths)
    assert torch.autograd.gradcheck(
        lambda inputs, *_: bidirectional_gru(gru, inputs, lengths)[valid],
        (inputs, *gru.parameters()),
    )


def test_states_are_right_to_1e_5_at_the_published_size() -> None:
    torch.manual_seed(0)
    gru = nn.GRU(13, 96, 3, batch_first=True, bidirectional=True)
    lengths = torch.tensor([60, 17, 44, 1])
    inputs = 3 * torch.randn(4, 60, 13)
    valid = counts(inputs, lengths)
    for density in 1.0, 0.1:  # as dense, then as masked
        with torch.no_grad():
            for parameter in gru.parameters():
                parameter.mul_(torch.rand_like(parameter) < density)
        difference = bidirectional_gru(gru, inputs, lengths) - packed_gru(gru, inputs, lengths)
        assert difference[valid].abs().max() < 1e-5


@pytest.mark.parametrize("representation", ["absolute", "velocity"])
def test_training_and_inference_see_the_same_noise(cache: Cache, representation: str) -> None:
    torch.manual_seed(0)
    denoiser = tiny_model(cache, representation=representation).build()
    lengths = torch.tensor([9, 4, 7])
    points, times = torch.randn(3, 9, 3, generator=seeded()), torch.tensor([0.1, 0.5, 1.0])
    trained = denoiser(points, lengths, times)
    with torch.no_grad():
        inferred = denoiser(points, lengths, times)
    valid = counts(points, lengths)
    assert trained.requires_grad
    torch.testing.assert_close(trained[valid], inferred[valid], rtol=1e-5, atol=1e-5)


def test_denoiser_sees_places_steps_pen_and_time() -> None:
    torch.manual_seed(0)
    seen: list[Tensor] = []
    places = torch.tensor([[[1.0, 2.0, 0.0], [4.0, 6.0, 1.0]]])
    steps = torch.tensor([[[1.0, 2.0, 0.0], [3.0, 4.0, 1.0]]])
    time = torch.tensor([0.25])
    for representation, points, other in (
        ("absolute", places, steps),
        ("velocity", steps, places),
    ):
        denoiser = Denoiser(representation, layers=1, units=4)
        denoiser.gru.register_forward_pre_hook(lambda _, args: seen.append(args[0].data))
        with torch.no_grad():
            denoiser(points, torch.tensor([2]), time)
        angles = torch.pi / 2 * denoiser.frequencies
        expected = torch.cat([angles.sin(), angles.cos()]).expand(2, -1)
        torch.testing.assert_close(
            seen.pop(), torch.cat([points[0], other[0, :, :2], expected], dim=1)
        )


def test_time_is_embedded_in_fixed_random_frequencies() -> None:
    torch.manual_seed(0)
    first = Denoiser("absolute", 1, 4)
    assert first.frequencies.shape == (4,)
    assert "frequencies" in first.state_dict()
    assert "frequencies" not in dict(first.named_parameters())
    assert not torch.equal(first.frequencies, Denoiser("absolute", 1, 4).frequencies)


def test_bf16_autocast_trains() -> None:
    torch.manual_seed(0)
    denoiser = Denoiser("absolute", 2, 8)
    points, lengths, time = torch.randn(2, 6, 3), torch.tensor([6, 4]), torch.tensor([0.3, 0.9])
    exact = denoiser(points, lengths, time)
    with torch.autocast("cpu", torch.bfloat16):
        rough = denoiser(points, lengths, time)
    rough.float().sum().backward()
    assert rough.dtype == torch.bfloat16
    assert (rough - exact)[counts(points, lengths)].abs().max() < 0.02
    assert all(parameter.grad is not None for parameter in denoiser.parameters())


def test_flops_are_those_counted_by_hand(cache: Cache) -> None:
    """Every matrix is used once per point: the inputs are 3 + 2 + 8 wide."""
    model = tiny_model(cache, layers=2, units=5)
    by_hand = (
        2 * 3 * 5 * (13 + 5)  # first layer, two directions of three gates
        + 2 * 3 * 5 * (10 + 5)  # second layer
        + 10 * 5  # join
        + (5 + 8) * 3  # predict
    )
    mean_points = round(sum(range(5, 25)) / 20)  # the first point is not diffused
    counted = flops_by_weight(model.build(), model.example()).under({})
    assert counted.dense == by_hand * mean_points
    assert model.metadata() == {"mean_points": 14.5, "dense_flops_per_point": by_hand}


def test_flops_follow_the_density_of_each_matrix(cache: Cache) -> None:
    model = tiny_model(cache, layers=1, units=5)
    denoiser = model.build()
    flops = flops_by_weight(denoiser, model.example())
    dense = flops.under({}).masked
    half = flops.under({"gru.weight_hh_l0_reverse": 0.5}).masked
    points = model.example()[0].shape[1]
    assert dense - half == 0.5 * 15 * 5 * points


def test_facts_leave_the_random_numbers_alone(cache: Cache) -> None:
    model = tiny_model(cache)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    model.metadata()
    assert torch.equal(torch.rand(3), expected)


def test_every_matrix_may_be_masked(cache: Cache) -> None:
    model = tiny_model(cache, layers=2)
    denoiser = model.build()
    sparsifiable = model.sparsifiable(denoiser)
    assert set(sparsifiable) == {"join.weight", "predict.weight"} | {
        f"gru.weight_{kind}_l{layer}{direction}"
        for kind in ("ih", "hh")
        for layer in (0, 1)
        for direction in ("", "_reverse")
    }
    assert {n for n, p in denoiser.named_parameters() if p.ndim == 2} == set(sparsifiable)
