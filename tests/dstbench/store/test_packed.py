"""Packed tensors, and the file of a trained network."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_model
from torch import Tensor, nn

from dstbench.store.packed import mask_bytes, pack, pack_mask, unpack, unpack_mask
from dstbench.store.weights import read_state, write_network

FLOATS = {torch.float32: torch.int32, torch.float64: torch.int64, torch.bfloat16: torch.int16}


def same_bits(one: Tensor, other: Tensor) -> bool:
    integer = FLOATS[one.dtype]
    return (
        one.dtype == other.dtype
        and one.stride() == other.stride()
        and torch.equal(one.view(integer), other.view(integer))
    )


def test_by_hand() -> None:
    mask = torch.tensor([[True, False, True], [False, False, True]])
    weight = torch.tensor([[1.0, 0, -2], [0, 0, 3]])
    packed = pack({"w": weight, "bias": weight[0]}, {"w": mask})
    assert list(packed) == ["w:active", "bias"]
    assert packed["w:active"].tolist() == [1, -2, 3]
    assert pack_mask(mask).tolist() == [1 + 4 + 32]
    assert torch.equal(unpack(packed, {"w": mask})["w"], weight)


def test_what_is_not_zero_outside_the_mask_stays_as_it_is() -> None:
    mask = torch.tensor([True, False])
    for odd in (
        torch.tensor([1.0, 2.0]),
        torch.tensor([1.0, -0.0]),
        torch.tensor([1.0, torch.nan]),
    ):
        assert list(pack({"w": odd}, {"w": mask})) == ["w"]
    assert list(pack({"w": torch.zeros(2, 1)}, {"w": mask})) == ["w"]


@pytest.mark.parametrize("values", [0, 1, 3])
def test_values_of_another_mask_are_refused(values: int) -> None:
    mask = torch.tensor([True, False, True])
    with pytest.raises(RuntimeError, match=f"{values} active values were kept of a mask with 2"):
        unpack({"w:active": torch.zeros(values)}, {"w": mask})


@given(
    st.lists(st.booleans(), min_size=1, max_size=72),
    st.sampled_from(list(FLOATS)),
    st.booleans(),
    st.data(),
)
def test_every_bit_comes_back(
    active: list[bool], dtype: torch.dtype, channels_last: bool, data: st.DataObject
) -> None:
    floats = st.floats(width=32) | st.sampled_from([-0.0, float("nan"), float("-inf"), 1e-45])
    numbers = data.draw(st.lists(floats, min_size=len(active), max_size=len(active)))
    shape = (2, len(active) // 2, 1, 1) if len(active) % 2 == 0 else (1, len(active), 1, 1)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    mask = torch.tensor(active).view(shape).to(memory_format=layout)
    values = torch.tensor(numbers, dtype=dtype).view(shape).to(memory_format=layout)
    weight = torch.where(mask, values, torch.zeros((), dtype=dtype)).to(memory_format=layout)
    tensors = {"w": weight, "unmasked": values}
    packed = pack(tensors, {"w": mask})
    assert packed["w:active"].numel() == sum(active)
    unpacked = unpack(packed, {"w": mask})
    assert unpacked.keys() == tensors.keys()
    assert all(same_bits(unpacked[name], tensors[name]) for name in tensors)
    bits = pack_mask(mask)
    assert bits.nbytes == mask_bytes(len(active)) == (len(active) + 7) // 8
    assert torch.equal(unpack_mask(bits, mask.shape), mask)


def network() -> nn.Module:
    """With a linear layer that is there twice, and a convolution in another memory format."""
    shared = nn.Linear(3, 3)
    last = nn.Conv2d(2, 4, 3).to(memory_format=torch.channels_last)
    return nn.Sequential(shared, nn.BatchNorm1d(3), shared, last)


def masked_network() -> tuple[nn.Module, dict[str, Tensor]]:
    made = network()
    masks = {}
    for name in ("0.weight", "3.weight"):
        weight = made.get_parameter(name)
        masks[name] = torch.rand_like(weight) < 0.2
        weight.data[~masks[name]] = 0
    return made, masks


def test_a_network_is_read_as_it_was_written(tmp_path: Path) -> None:
    trained, masks = masked_network()
    path = tmp_path / "denoiser.safetensors"
    size = write_network(path, trained, masks)
    active = sum(int(mask.count_nonzero()) for mask in masks.values())
    dense_part = 4 * (3 + 4 + 4 * 3) + 8  # biases, the norm and its counter
    assert size == 4 * active + 2 + 9 + dense_part
    state = read_state(path)
    assert {name: state[name].tolist() for name in state} == {
        name: tensor.tolist() for name, tensor in trained.state_dict().items()
    }
    other = network()
    other.load_state_dict(state)
    assert other[3].weight.is_contiguous(memory_format=torch.channels_last)


def test_what_is_in_the_file(tmp_path: Path) -> None:
    trained, masks = masked_network()
    path = tmp_path / "denoiser.safetensors"
    write_network(path, trained, masks)
    with safe_open(path, "pt") as file:
        names, metadata = set(file.keys()), file.metadata()
    assert {"0.weight:active", "0.weight:mask", "3.weight:active", "3.weight:mask"} <= names
    assert not {"0.weight", "2.weight", "3.weight"} & names
    told = json.loads(metadata["dstbench"])
    assert told["shapes"] == {"0.weight": [3, 3], "3.weight": [4, 2, 3, 3]}
    assert told["shared"]["2.weight"] == "0.weight"


def test_a_dense_network_is_in_a_plain_file(tmp_path: Path) -> None:
    trained = nn.Linear(3, 2)
    assert write_network(tmp_path / "dense", trained, {}) == 4 * 8
    read = load_file(tmp_path / "dense")
    assert {name: tensor.tolist() for name, tensor in read.items()} == {
        name: tensor.tolist() for name, tensor in trained.state_dict().items()
    }


def test_files_of_earlier_versions_are_read(tmp_path: Path) -> None:
    trained = network()
    save_model(trained, str(tmp_path / "old"))
    network().load_state_dict(read_state(tmp_path / "old"))
