"""A GRU computed from its active weights is the masked dense one, within rounding."""

import copy

import pytest
import torch
from masked import masks_of
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from dstbench.kernels import Choice, SparseGRU, use_kernels
from dstbench.kernels.use import KernelUse


def beside_exact(
    gru: nn.GRU, density: float, group: int = 1
) -> tuple[dict[str, Tensor], nn.GRU, KernelUse]:
    """The masks of a GRU that kernels are in use for, and the same GRU in float64, masked dense."""
    masks = masks_of(gru, density, group)
    exact = copy.deepcopy(gru).double()
    return masks, exact, use_kernels([gru], masks, Choice("sparse"))


def assert_same_gradients(
    gru: nn.GRU, exact: nn.GRU, masks: dict[str, Tensor], pairs: list[tuple[Tensor, Tensor]]
) -> None:
    (inputs, exact_inputs), (states, exact_states) = pairs
    gradient = torch.randn_like(states)
    found = torch.autograd.grad(states, [inputs, *gru.parameters()], gradient)
    wanted = torch.autograd.grad(
        exact_states, [exact_inputs, *exact.parameters()], gradient.double()
    )
    names = ["inputs", *(name for name, _ in gru.named_parameters())]
    for name, one, other in zip(names, found, wanted, strict=True):
        other = other * masks[name] if name in masks else other
        torch.testing.assert_close(one.double(), other, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("batch", "time", "features", "units", "layers", "bidirectional", "group"),
    [
        (1, 1, 3, 5, 1, False, 1),
        (3, 5, 4, 8, 1, True, 4),
        (17, 7, 5, 12, 2, True, 2),
        (70, 4, 13, 20, 2, False, 1),
        (130, 3, 6, 16, 1, True, 1),
    ],
)
@pytest.mark.parametrize("batch_first", [False, True])
def test_whole_sequences(
    batch: int,
    time: int,
    features: int,
    units: int,
    layers: int,
    bidirectional: bool,
    group: int,
    batch_first: bool,
) -> None:
    torch.manual_seed(0)
    gru = nn.GRU(features, units, layers, batch_first=batch_first, bidirectional=bidirectional)
    masks, exact, use = beside_exact(gru, 0.4, group)
    shape = (batch, time, features) if batch_first else (time, batch, features)
    inputs = torch.randn(shape, requires_grad=True)
    exact_inputs = inputs.detach().double().requires_grad_()
    states, last = gru(inputs)
    exact_states, exact_last = exact(exact_inputs)
    assert all(each.in_use for each in use.layers.values())
    torch.testing.assert_close(states.double(), exact_states, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(last.double(), exact_last, atol=1e-5, rtol=1e-4)
    pairs = [(inputs, exact_inputs), (states, exact_states)]
    assert_same_gradients(gru, exact, masks, pairs)
    use.stop()
    assert type(gru) is nn.GRU


@pytest.mark.parametrize("time", [7, 8, 19])
def test_without_gradients(time: int) -> None:
    torch.manual_seed(0)
    gru = nn.GRU(5, 12, 2, batch_first=True, bidirectional=True)
    _, exact, use = beside_exact(gru, 0.4)
    inputs = 50 * torch.randn(70, time, 5)  # whose gates are closed and open
    with torch.no_grad():
        states, last = gru(inputs)
        exact_states, exact_last = exact(inputs.double())
    use.stop()
    torch.testing.assert_close(states.double(), exact_states, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(last.double(), exact_last, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("batch", "bidirectional"), [(40, True), (150, True), (150, False)])
def test_sequences_of_different_lengths(batch: int, bidirectional: bool, threads: int) -> None:
    torch.manual_seed(0)
    gru = nn.GRU(5, 16, 2, batch_first=True, bidirectional=bidirectional)
    masks, exact, use = beside_exact(gru, 0.2)
    lengths = torch.randint(1, 20, (batch,))
    lengths[3] = 21
    inputs = torch.randn(batch, 21, 5)
    inputs[torch.arange(21) >= lengths[:, None]] = torch.nan  # which nobody reads
    exact_inputs = inputs.double().requires_grad_()
    inputs.requires_grad_()
    packed = pack_padded_sequence(exact_inputs, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(exact(packed)[0], batch_first=True)
    assert isinstance(gru, SparseGRU)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        states = gru.states(inputs, lengths)
        assert states is not None
        torch.testing.assert_close(states.double(), expected, atol=1e-5, rtol=1e-4)
        with torch.no_grad():
            drawn = gru.states(inputs, lengths)
        assert drawn is not None
        torch.testing.assert_close(drawn.double(), expected, atol=1e-5, rtol=1e-4)
        pairs = [(inputs, exact_inputs), (states, expected)]
        assert_same_gradients(gru, exact, masks, pairs)
    finally:
        torch.set_num_threads(before)
        use.stop()


@pytest.mark.parametrize("lengths", [[3, 5], [3, 0], [3, -1], [3], [3, 4, 4]])
def test_lengths_that_do_not_fit_are_left_to_torch(lengths: list[int]) -> None:
    gru = nn.GRU(5, 16, batch_first=True)
    use = use_kernels([gru], masks_of(gru, 0.2), Choice("sparse"))
    assert isinstance(gru, SparseGRU)
    found = gru.states(torch.randn(2, 4, 5), torch.tensor(lengths))
    use.stop()
    assert found is None


@pytest.mark.parametrize("enforce_sorted", [False, True])
def test_packed_sequences(enforce_sorted: bool) -> None:
    torch.manual_seed(0)
    gru = nn.GRU(5, 16, 2, bidirectional=True)
    masks = masks_of(gru, 0.3)
    inputs = torch.randn(9, 6, 5)
    lengths = torch.tensor([9, 7, 7, 4, 2, 1] if enforce_sorted else [4, 9, 1, 7, 2, 7])
    packed = pack_padded_sequence(inputs, lengths, enforce_sorted=enforce_sorted)
    expected, expected_last = gru(packed)
    use = use_kernels([gru], masks, Choice("sparse"))
    states, last = gru(packed)
    assert all(each.in_use for each in use.layers.values())
    torch.testing.assert_close(states.data, expected.data, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(last, expected_last, atol=1e-5, rtol=1e-4)
    one, other = pad_packed_sequence(states), pad_packed_sequence(expected)
    torch.testing.assert_close(one[0], other[0], atol=1e-5, rtol=1e-4)
    assert one[1].equal(other[1])


def test_what_is_not_finite_is_not_hidden() -> None:
    gru = nn.GRU(3, 4, batch_first=True)
    masks = masks_of(gru, 0.5)
    with torch.no_grad():
        gru.bias_ih_l0[0] = torch.nan
        gru.bias_ih_l0[5] = torch.inf
    use = use_kernels([gru], masks, Choice("sparse"))
    states, _ = gru(torch.randn(2, 1, 3))
    use.stop()
    assert states.isnan().tolist() == [[[True, False, False, False]]] * 2
