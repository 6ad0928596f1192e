"""FLOPs of masked networks, against counts made by hand."""

import warnings
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from dstbench.counting.flops import Flops, flops_by_weight, training_flops
from dstbench.errors import CountingError
from dstbench.sparsity.distribution import densities


class TwoLayers(nn.Module):
    """Conv 3→8, 3×3, on 6×6 (padded); then the mean over space; then 8→5."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(F.silu(self.conv(x)).mean((2, 3)))
        return out


def count_flops(
    module: nn.Module, inputs: tuple[Any, ...], densities: Mapping[str, float] | None = None
) -> Flops:
    return flops_by_weight(module, inputs).under(densities or {})


CONV, HEAD = 8 * 3 * 3 * 3 * 6 * 6, 8 * 5
IMAGE = (torch.zeros(1, 3, 6, 6),)


def test_two_layers_by_hand() -> None:
    count = count_flops(TwoLayers(), IMAGE, {"conv.weight": 0.25, "head.weight": 0.5})
    assert count == Flops(CONV + HEAD, CONV / 4 + HEAD / 2)


def test_flops_grow_with_the_batch() -> None:
    assert count_flops(TwoLayers(), (torch.zeros(4, 3, 6, 6),)).dense == 4 * (CONV + HEAD)


def test_one_trace_serves_all_masks() -> None:
    flops = flops_by_weight(TwoLayers(), IMAGE)
    assert flops.by_weight == {"conv.weight": CONV, "head.weight": HEAD}
    assert flops.parameters == {"conv.weight", "conv.bias", "head.weight", "head.bias"}
    for densities_ in ({}, {"conv.weight": 0.25, "head.weight": 0.5}):
        assert flops.under(densities_) == count_flops(TwoLayers(), IMAGE, densities_)


@settings(max_examples=20, deadline=None)
@given(conv=st.floats(0, 1), head=st.floats(0, 1))
def test_masked_flops_follow_the_densities(conv: float, head: float) -> None:
    count = count_flops(TwoLayers(), IMAGE, {"conv.weight": conv, "head.weight": head})
    assert count.dense == CONV + HEAD
    assert count.masked == pytest.approx(CONV * conv + HEAD * head)


def test_strides_groups_and_transposed_convolutions() -> None:
    module = nn.Sequential(
        nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2), nn.ConvTranspose2d(8, 4, 2, stride=2)
    )
    flops = flops_by_weight(module, (torch.zeros(1, 4, 6, 6),))
    assert flops.by_weight == {"0.weight": 8 * 2 * 9 * 3 * 3, "1.weight": 8 * 4 * 4 * 3 * 3}


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_gru_by_hand(bias: bool, batch_first: bool) -> None:
    batch, time, width, hidden = 2, 11, 5, 7
    gru = nn.GRU(width, hidden, 2, bias=bias, bidirectional=True, batch_first=batch_first)
    shape = (batch, time, width) if batch_first else (time, batch, width)
    first = 2 * 3 * (width * hidden + hidden * hidden)
    second = 2 * 3 * (2 * hidden * hidden + hidden * hidden)
    count = count_flops(
        gru, (torch.zeros(shape),), {"weight_hh_l0": 0.5, "weight_ih_l1_reverse": 0.25}
    )
    assert count.dense == batch * time * (first + second)
    masked_away = 3 * hidden * hidden * 0.5 + 3 * 2 * hidden * hidden * 0.75
    assert count.masked == batch * time * (first + second - masked_away)


def test_gru_of_packed_sequences_counts_their_true_lengths() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(5, 7)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
            out: Tensor = nn.utils.rnn.pad_packed_sequence(self.gru(packed)[0])[0]
            return out

    inputs = (torch.zeros(11, 2, 5), torch.tensor([3, 11]))
    count = count_flops(Packed(), inputs, {"gru.weight_ih_l0": 0.5})
    assert count.dense == (11 + 3) * 3 * (5 * 7 + 7 * 7)
    assert count.masked == (11 + 3) * 3 * (5 * 7 / 2 + 7 * 7)


def test_lstm_by_hand() -> None:
    count = count_flops(nn.LSTM(5, 7), (torch.zeros(11, 2, 5),), {"weight_hh_l0": 0.5})
    assert count.dense == 11 * 2 * 4 * (5 * 7 + 7 * 7)
    assert count.masked == 11 * 2 * 4 * (5 * 7 + 7 * 7 / 2)


def test_scaled_dot_product_attention_by_hand() -> None:
    class Attention(nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(q, k, v)

    batch, heads, length, source, width, value_width = 2, 3, 5, 7, 4, 6
    count = count_flops(
        Attention(),
        (
            torch.zeros(batch, heads, length, width),
            torch.zeros(batch, heads, source, width),
            torch.zeros(batch, heads, source, value_width),
        ),
    )
    assert count.dense == batch * heads * length * source * (width + value_width)


@pytest.mark.parametrize("need_weights", [True, False])
def test_multihead_attention_scales_its_projections_only(need_weights: bool) -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor, context: Tensor) -> Tensor:
            out: Tensor = self.attention(x, context, context, need_weights=need_weights)[0]
            return out

    length, source, width = 5, 7, 8
    count = count_flops(
        Attention(),
        (torch.zeros(1, length, width), torch.zeros(1, source, width)),
        {"attention.in_proj_weight": 0.5, "attention.out_proj.weight": 0.25},
    )
    projections = (length + 2 * source) * width * width
    output = length * width * width
    products = 2 * length * source * width
    assert count.dense == projections + output + products
    assert count.masked == projections / 2 + output / 4 + products


def test_multihead_self_attention_is_counted_although_torch_would_fuse_it() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.attention(x, x, x, need_weights=False)[0]
            return out

    before = torch.backends.mha.get_fastpath_enabled()
    count = count_flops(Attention(), (torch.zeros(1, 5, 8),))
    assert count.dense == 4 * 5 * 8 * 8 + 2 * 5 * 5 * 8
    assert torch.backends.mha.get_fastpath_enabled() == before


def test_matrix_products_by_hand() -> None:
    class Products(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(4, 6))

        def forward(self, x: Tensor) -> Tensor:
            y = torch.matmul(x, self.weight)  # (2, 3, 4) by (4, 6)
            broadcast = torch.matmul(x[0], x.transpose(1, 2))  # (3, 4) by (2, 4, 3)
            added = torch.baddbmm(broadcast, x, x.transpose(1, 2))
            total: Tensor = y.sum() + added.sum()
            return total

    count = count_flops(Products(), (torch.zeros(2, 3, 4),), {"weight": 0.5})
    assert count.dense == 2 * 3 * 4 * 6 + 2 * (2 * 3 * 4 * 3)
    assert count.masked == 2 * 3 * 4 * 6 / 2 + 2 * (2 * 3 * 4 * 3)


def test_a_reused_module_is_counted_at_each_use() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.same = self.layer

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.same(self.layer(x))
            return out

    count = count_flops(Twice(), (torch.zeros(1, 4),), {"layer.weight": 0.5})
    assert count == Flops(32, 16)


def test_tied_weights_are_scaled_in_both_layers() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.second(self.first(x))
            return out

    assert count_flops(Tied(), (torch.zeros(1, 4),), {"first.weight": 0.25}).masked == 8


def test_a_heavy_operator_without_a_rule_is_an_error() -> None:
    class Spectrum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            spectrum: Tensor = torch.fft.fft(x).real
            return spectrum

    with pytest.raises(CountingError) as caught:
        count_flops(nn.Sequential(nn.Linear(4, 4), Spectrum()), (torch.zeros(1, 4),))
    assert str(caught.value) == "no rule counts the FLOPs of aten::fft_fft, used in module '1'"
    with pytest.raises(CountingError) as caught:
        count_flops(Spectrum(), (torch.zeros(1, 4),))
    assert str(caught.value) == (
        "no rule counts the FLOPs of aten::fft_fft, used in the network itself"
    )


def test_a_custom_autograd_function_is_an_error() -> None:
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x * 2

    class Custom(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = Double.apply(x)
            return out

    with pytest.raises(CountingError, match=r"prim::PythonOp\.Double"):
        count_flops(Custom(), (torch.zeros(1, 4),))


def test_a_masked_weight_that_cannot_be_followed_is_an_error() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(4, 4))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.weight * 2)

    with pytest.raises(CountingError) as caught:
        count_flops(Scaled(), (torch.zeros(1, 4),), {"weight": 0.5})
    assert str(caught.value) == (
        "the masked parameter 'weight' takes part in no operator that is counted: it is unused, "
        "or not used as it is"
    )
    assert count_flops(Scaled(), (torch.zeros(1, 4),), {"weight": 1.0}).masked == 16


@pytest.mark.parametrize(
    ("given_densities", "message"),
    [
        ({"conv": 0.5}, "a density is given for 'conv', which is no parameter"),
        ({"conv.weight": 1.5}, "the density of 'conv.weight' must be between 0 and 1, not 1.5"),
        ({"conv.weight": -0.1}, "the density of 'conv.weight' must be between 0 and 1, not -0.1"),
    ],
)
def test_densities_must_make_sense(given_densities: dict[str, float], message: str) -> None:
    with pytest.raises(CountingError) as caught:
        count_flops(TwoLayers(), IMAGE, given_densities)
    assert str(caught.value) == message


def test_the_module_is_left_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(), nn.Conv2d(4, 4, 1))
    module[2].eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        count_flops(module, IMAGE)
    assert [m.training for m in module] == [True, True, False, True]
    assert all(torch.equal(before[name], t) for name, t in module.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    assert caplog.records == []


def test_training_flops() -> None:
    count = Flops(dense=100, masked=10)
    assert training_flops(count, examples_per_step=4, steps=50) == 4 * 50 * 30
    rigl = training_flops(count, examples_per_step=4, steps=50, dense_gradient_steps=5)
    assert rigl == 4 * (45 * 30 + 5 * (2 * 10 + 100))
    with pytest.raises(CountingError) as caught:
        training_flops(count, 4, 50, 51)
    assert str(caught.value) == "51 of 50 steps cannot have dense gradients"


def unet(sample_size: int, channels: tuple[int, ...], heads: int, groups: int) -> UNet2DModel:
    """diffusers' U-Net with one plain block and attention in the others."""
    attention = len(channels) - 1
    return UNet2DModel(
        sample_size=sample_size,
        in_channels=3,
        out_channels=3,
        layers_per_block=2,
        block_out_channels=channels,
        down_block_types=("DownBlock2D",) + ("AttnDownBlock2D",) * attention,
        up_block_types=("AttnUpBlock2D",) * attention + ("UpBlock2D",),
        attention_head_dim=heads,
        norm_num_groups=groups,
    )


def layers(network: nn.Module) -> list[str]:
    return [n for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def test_a_small_unet_masks_all_its_layers_and_nothing_else() -> None:
    network = unet(8, (16, 32), heads=8, groups=8)
    inputs = (torch.zeros(1, 3, 8, 8), torch.zeros(1, dtype=torch.long))
    names = layers(network)
    flops = flops_by_weight(network, inputs)
    in_layers = sum(flops.by_weight[f"{name}.weight"] for name in names)
    count = flops.under({f"{name}.weight": 0.5 for name in names})
    assert in_layers > 0.9 * count.dense
    assert count.dense - count.masked == in_layers / 2


@pytest.mark.slow
def test_the_network_of_the_paper() -> None:
    """The numbers of CompVis' celebahq-ldm-vq-4 U-Net, and of ERK on it."""
    with torch.device("meta"):
        network = unet(64, (224, 448, 672, 896), heads=32, groups=32)
    network.to_empty(device="cpu")  # no need to initialise what is only traced
    assert sum(p.numel() for p in network.parameters()) == 274_056_163
    inputs = (torch.zeros(1, 3, 64, 64), torch.zeros(1, dtype=torch.long))
    by_weight = flops_by_weight(network, inputs).by_weight
    flops = {name: by_weight[name] for name in (f"{layer}.weight" for layer in layers(network))}
    assert len(flops) == 155
    assert sum(flops.values()) / 1e9 == pytest.approx(96.02, abs=0.005)

    shapes = {n: tuple(p.shape) for n, p in network.named_parameters() if n in flops}
    for sparsity, ratio in ((0.1, 0.974), (0.25, 0.908), (0.5, 0.675), (0.75, 0.275), (0.9, 0.120)):
        erk = densities(shapes, sparsity, "erk")
        masked = sum(flops[name] * erk[name] for name in flops)
        assert masked / sum(flops.values()) == pytest.approx(ratio, abs=0.0005)
