import doctest
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import dstbench.sparsity
from dstbench.errors import SparsityError
from dstbench.sparsity import sparsifiable_weights
from dstbench.sparsity.layers import apply_mask_


def names(module: nn.Module, *keep_dense: str) -> set[str]:
    found = sparsifiable_weights(module, keep_dense)
    parameters = dict(module.named_parameters())
    assert all(found[name] is parameters[name] for name in found)
    return set(found)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (lambda: nn.Linear(3, 2), {"weight"}),
        (lambda: nn.Bilinear(3, 2, 4), {"weight"}),
        (lambda: nn.Conv1d(3, 2, 3), {"weight"}),
        (lambda: nn.Conv2d(4, 2, 3, groups=2), {"weight"}),
        (lambda: nn.ConvTranspose2d(3, 2, 3), {"weight"}),
        (
            lambda: nn.GRU(3, 4, num_layers=2, bidirectional=True),
            {
                f"weight_{kind}_l{layer}{direction}"
                for kind in ("ih", "hh")
                for layer in (0, 1)
                for direction in ("", "_reverse")
            },
        ),
        (
            lambda: nn.LSTM(3, 4, proj_size=2),
            {"weight_ih_l0", "weight_hh_l0", "weight_hr_l0"},
        ),
        (lambda: nn.GRUCell(3, 4), {"weight_ih", "weight_hh"}),
        (lambda: nn.MultiheadAttention(4, 2), {"in_proj_weight", "out_proj.weight"}),
        (
            lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=5, add_bias_kv=True),
            {"q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"},
        ),
    ],
    ids=[
        "linear",
        "bilinear",
        "conv1d",
        "conv2d",
        "transposed",
        "gru",
        "lstm",
        "cell",
        "mha",
        "qkv",
    ],
)
def test_connections_are_found(module: Callable[[], nn.Module], expected: set[str]) -> None:
    assert names(module()) == expected


@pytest.mark.parametrize(
    "module",
    [
        nn.GroupNorm(2, 4),
        nn.LayerNorm((3, 4)),
        nn.BatchNorm2d(4),
        nn.InstanceNorm1d(4, affine=True),
        nn.RMSNorm((3, 4)),
        nn.Embedding(5, 4),
        nn.EmbeddingBag(5, 4),
        nn.PReLU(4),
    ],
    ids=lambda module: type(module).__name__,
)
def test_norms_and_embeddings_are_never_masked(module: nn.Module) -> None:
    assert any(True for _ in module.parameters())
    assert names(module) == set()


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[0].requires_grad_(False)
    assert names(model) == {"1.weight"}


def test_tied_weights_are_found_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    assert names(model) == {"0.weight", "1.weight"}


@pytest.mark.parametrize("embedding_first", [True, False])
def test_an_embedding_tied_to_a_linear_layer_stays_dense(embedding_first: bool) -> None:
    embedding, head = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
    head.weight = embedding.weight
    layers = [embedding, nn.Linear(4, 4), head]
    assert names(nn.Sequential(*(layers if embedding_first else layers[::-1]))) == {"1.weight"}


class WithToken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 4))
        self.gain = nn.Parameter(torch.ones(4))
        self.head = nn.Linear(4, 2)


def test_a_matrix_of_an_unknown_module_is_not_missed_silently() -> None:
    with pytest.raises(
        SparsityError, match=r"token \(of a WithToken\); keep_dense = \[\"token\"\]"
    ):
        names(WithToken())
    assert names(WithToken(), "token") == {"head.weight"}


def test_a_frozen_matrix_of_an_unknown_module_is_no_obstacle() -> None:
    model = WithToken()
    model.token.requires_grad_(False)
    assert names(model) == {"head.weight"}


@pytest.mark.parametrize(
    "reparametrize",
    [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm],
)
def test_reparametrized_weights_are_not_missed_silently(
    reparametrize: Callable[[nn.Module], nn.Module],
) -> None:
    with pytest.raises(SparsityError, match=r"parametrizations.weight.original"):
        names(nn.Sequential(reparametrize(nn.Linear(4, 4))))


def test_keep_dense_takes_shell_patterns() -> None:
    model = nn.ModuleDict(
        {
            "conv_in": nn.Conv2d(3, 4, 3),
            "body": nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)),
            "conv_out": nn.Conv2d(4, 3, 3),
        }
    )
    assert names(model, "conv_*.weight", "body.1.*") == {"body.0.weight"}


def test_a_pattern_that_matches_nothing_names_the_nearest() -> None:
    with pytest.raises(
        SparsityError, match=r'"1.wieght" matches no parameter; the nearest is "1.weight"'
    ):
        names(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), "1.wieght")


@pytest.mark.slow  # importing diffusers is
def test_every_convolution_and_linear_layer_of_a_unet_is_found() -> None:
    from diffusers import UNet2DModel

    unet = UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        norm_num_groups=4,
    )
    expected = {
        f"{name}.weight"
        for name, module in unet.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
    found = names(unet)
    assert found == expected
    for projection in ("to_q", "to_k", "to_v", "to_out.0"):
        assert f"mid_block.attentions.0.{projection}.weight" in found
    assert "time_embedding.linear_1.weight" in found
    matrices = {name for name, p in unet.named_parameters() if p.ndim >= 2}
    assert matrices == found


SPECIAL = [1.5, -2.5, torch.nan, torch.inf, -torch.inf, -0.0, 3.0, -1.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_outside_the_mask_becomes_positive_zero(dtype: torch.dtype) -> None:
    tensor = torch.tensor(SPECIAL, dtype=dtype)
    mask = torch.tensor([True, False, False, False, False, False, True, True])
    expected = torch.tensor([1.5, 0, 0, 0, 0, 0, 3, -1], dtype=dtype)
    apply_mask_(tensor, mask)
    assert tensor.dtype == dtype
    assert torch.equal(tensor, expected)
    assert not torch.signbit(tensor[1:6]).any()


@pytest.mark.parametrize(
    "strided",
    [
        lambda t: t,
        lambda t: t.to(memory_format=torch.channels_last),
        lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
    ],
    ids=["contiguous", "channels_last", "transposed"],
)
def test_mask_and_tensor_may_differ_in_layout(strided: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    tensor, mask = torch.randn(4, 3, 2, 2), torch.rand(4, 3, 2, 2) < 0.5
    expected = torch.where(mask, tensor, 0)
    changed = strided(tensor.clone())
    apply_mask_(changed, mask)
    assert torch.equal(changed, expected)


def test_the_example_of_the_package_is_true() -> None:
    results = doctest.testmod(dstbench.sparsity)
    assert results.attempted >= 8
    assert results.failed == 0
