"""Seeds for a purpose."""

import hashlib

import torch
from hypothesis import given
from hypothesis import strategies as st

from dstbench.seeds import derive, seed_generators

SEEDS = st.integers(0, 2**31)
PURPOSES = st.lists(st.sampled_from(["weights", "step", "order", 0, 1, 17]), max_size=3).map(tuple)


def test_by_hand() -> None:
    first_8_bytes = hashlib.sha256(b"3/step/17").hexdigest()[:16]
    assert derive(3, "step", 17) == int(first_8_bytes, 16) // 2


@given(seed=SEEDS, purpose=PURPOSES)
def test_torch_takes_every_seed(seed: int, purpose: tuple[str | int, ...]) -> None:
    derived = derive(seed, *purpose)
    assert 0 <= derived < 2**63
    assert torch.Generator().manual_seed(derived).initial_seed() == derived


@given(a=st.tuples(SEEDS, PURPOSES), b=st.tuples(SEEDS, PURPOSES))
def test_seeds_and_purposes_are_told_apart(
    a: tuple[int, tuple[str | int, ...]], b: tuple[int, tuple[str | int, ...]]
) -> None:
    assert (derive(a[0], *a[1]) == derive(b[0], *b[1])) == (a == b)


def test_generators_are_seeded_as_torch_does_it() -> None:
    torch.manual_seed(2**62 + 1)
    expected = torch.rand(4)
    seed_generators(2**62 + 1, torch.device("cpu"))
    assert torch.equal(torch.rand(4), expected)
