"""Weights as the values of their active connections: there and back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dstbench.kernels import Choice, library
from dstbench.kernels.connections import Connections
from dstbench.kernels.packing import carried, packed, unpacked

pytestmark = pytest.mark.skipif(library.why_not() is not None, reason="no sparse kernels here")


def connections_of(mask: Tensor) -> Connections:
    return Connections("conv", mask, Choice("sparse"), lambda: False)


@given(
    outputs=st.integers(1, 24),
    inputs=st.integers(1, 70),
    size=st.sampled_from([1, 3]),
    group=st.sampled_from([1, 2, 4]),
    density=st.floats(0, 1),
    seed=st.integers(0, 9),
)
def test_a_weight_comes_back_as_it_went(
    outputs: int, inputs: int, size: int, group: int, density: float, seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    mask = torch.rand(outputs, inputs, size, size, generator=rng) < density
    mask = mask.repeat_interleave(group, dim=0)
    weight = torch.randn(mask.shape, generator=rng) * mask
    connections = connections_of(mask)
    values = packed(weight, connections)
    assert values.shape == (int(mask.sum()),)
    assert torch.equal(values.sort().values, weight[mask].sort().values)
    assert torch.equal(unpacked(values, connections), weight)


@given(
    outputs=st.integers(1, 24),
    inputs=st.integers(1, 70),
    size=st.sampled_from([1, 3]),
    groups=st.tuples(*2 * [st.sampled_from([1, 2, 4])]),
    densities=st.tuples(*2 * [st.floats(0, 1)]),
    seed=st.integers(0, 9),
)
def test_values_follow_their_connections_under_another_mask(
    outputs: int,
    inputs: int,
    size: int,
    groups: tuple[int, int],
    densities: tuple[float, float],
    seed: int,
) -> None:
    rng = torch.Generator().manual_seed(seed)
    old, new = (
        (
            torch.rand(4 * outputs // group, inputs, size, size, generator=rng) < density
        ).repeat_interleave(group, dim=0)
        for group, density in zip(groups, densities, strict=True)
    )
    weight = torch.randn(old.shape, generator=rng) * old
    connections = connections_of(old.clone())
    values, before = packed(weight, connections), connections.index()
    connections.mask.copy_(new)
    now = packed(weight, connections)
    same, twice = carried([values, 2 * values], before, connections)
    assert torch.equal(same, now)
    assert torch.equal(twice, 2 * now)


def test_they_are_each_others_derivatives() -> None:
    mask = torch.rand(8, 6, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.4
    connections = connections_of(mask)
    weight = torch.randn(8, 6, 3, 3, requires_grad=True)
    values = packed(weight, connections)
    values.square().sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, 2 * weight.detach() * mask)
    leaf = values.detach().requires_grad_()
    unpacked(leaf, connections).square().sum().backward()
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, 2 * leaf.detach())
