"""2:4 linear layers on a GPU's sparse tensor cores, where there are such; elsewhere, dense ones."""

import pytest
import torch
from torch import nn

from dstbench.kernels import Choice, use_kernels
from dstbench.kernels.connections import Connections
from dstbench.kernels.semi_structured import SemiStructuredLinear, takes_layer

HAS_SPARSE_CORES = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
needs_gpu = pytest.mark.skipif(
    not HAS_SPARSE_CORES, reason="there is no GPU with sparse tensor cores (compute capability 8.0)"
)


def two_of_four(rows: int, columns: int, device: str = "cpu") -> torch.Tensor:
    scores = torch.rand(rows, columns // 4, 4, device=device)
    best = scores.topk(2, dim=-1).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, best, True).flatten(1)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([1, 1, 0, 0, 0, 1, 0, 1], True),
        ([0, 1, 0, 0, 0, 0, 0, 0], True),
        ([0, 1, 1, 1, 0, 0, 0, 0], False),
        ([0, 0, 1, 1, 1, 0, 1, 1], False),
    ],
)
def test_which_masks_are_two_of_four(row: list[int], expected: bool) -> None:
    mask = torch.tensor([row, [0] * 8], dtype=torch.bool)

    connections = Connections("linear", mask, Choice("sparse"), lambda: False)

    assert connections.is_two_of_four is expected
    mask.fill_(True)
    assert not connections.is_two_of_four


def test_a_cpu_computes_such_a_layer_densely() -> None:
    layer = nn.Linear(64, 32)
    tokens = torch.randn(5, 64)
    expected = layer(tokens)

    assert not takes_layer(layer)
    layer.__class__ = SemiStructuredLinear
    assert torch.equal(layer(tokens), expected)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sparse_tensor_cores_compute_what_the_masked_layer_does(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(256, 128, device="cuda")
    mask = two_of_four(128, 256, "cuda")
    with torch.no_grad():
        layer.weight.mul_(mask)
    tokens = torch.randn(7, 9, 256, device="cuda", requires_grad=True)
    inputs = [tokens, layer.weight, layer.bias]

    def outcome() -> list[torch.Tensor]:
        with torch.autocast("cuda", dtype=dtype):
            out = layer(tokens)
        return [out, *torch.autograd.grad(out.float().square().sum(), inputs)]

    expected = outcome()
    use = use_kernels([layer], {"weight": mask}, Choice("sparse"))
    found = outcome()

    assert type(layer) is SemiStructuredLinear
    assert use.describe() == "sparse in 1 of 1 layers that they take"
    for ours, dense in zip(found, expected, strict=True):
        torch.testing.assert_close(
            ours, dense, rtol=2e-2, atol=2e-2 * float(dense.detach().abs().max())
        )


@pytest.mark.gpu
@needs_gpu
def test_sampling_follows_a_weight_that_changes() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(256, 128, device="cuda", dtype=torch.float16)
    mask = two_of_four(128, 256, "cuda")
    use = use_kernels([layer], {"weight": mask}, Choice("sparse"))
    tokens = torch.randn(32, 256, device="cuda", dtype=torch.float16)

    for factor in (1.0, 1.0, -2.0):
        with torch.no_grad():
            layer.weight.mul_(factor).mul_(mask)
            found = layer(tokens)
        expected = nn.functional.linear(tokens, layer.weight, layer.bias)

        torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)
    assert use.describe() == "sparse in 1 of 1 layers that they take"


@pytest.mark.gpu
@needs_gpu
def test_a_gpu_keeps_to_dense_kernels_unless_it_is_asked() -> None:
    layer = nn.Linear(256, 128, device="cuda")

    use_kernels([layer], {"weight": two_of_four(128, 256, "cuda")}, Choice("auto"))

    assert type(layer) is nn.Linear
