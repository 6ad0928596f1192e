from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dstbench.errors import SparsityError
from dstbench.kernels import library
from dstbench.sparsity import selection

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.int8, torch.int32, torch.int64)


@pytest.fixture(params=["kernels", "no kernels"], autouse=True, scope="module")
def kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    """In use, or not."""
    wanted = request.param == "kernels"
    if wanted and library.why_not():
        pytest.skip("no sparse kernels here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "loaded", library.load if wanted else lambda: None)
        yield


def largest(scores: Tensor, among: Tensor, count: int) -> Tensor:
    """What is chosen, which is the same in the way of a CPU and in that of a GPU."""
    try:
        chosen = selection.largest(scores, among, count)
    except SparsityError as error:
        with pytest.raises(SparsityError, match=f"^{error}$"):
            selection.first_of_order(scores, among, count)
        raise
    as_on_a_gpu = selection.first_of_order(scores, among, count)
    assert torch.equal(chosen, as_on_a_gpu)
    assert torch.zeros_like(among).stride() == as_on_a_gpu.stride()
    return chosen


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
def test_by_hand(dtype: torch.dtype) -> None:
    scores = torch.tensor([[5, 1, 4], [9, 3, 2]], dtype=dtype)
    among = torch.tensor([[True, True, True], [False, True, True]])
    assert largest(scores, among, 3).tolist() == [[True, False, True], [False, True, False]]


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
def test_negative_scores(dtype: torch.dtype) -> None:
    scores = torch.tensor([-5, -1, -4, 7], dtype=dtype)
    among = torch.tensor([True, True, True, False])
    assert largest(scores, among, 2).tolist() == [False, True, True, False]


def test_zero_scores_of_candidates_win_over_non_candidates() -> None:
    scores = torch.tensor([0.0, 0.0, 0.0, 0.0, 2.0, 7.0])
    among = torch.tensor([False, True, False, True, True, False])
    assert largest(scores, among, 2).tolist() == [False, True, False, False, True, False]
    assert largest(scores, among, 3).tolist() == among.tolist()


def test_ties_go_to_the_lower_index() -> None:
    scores = torch.tensor([1.0, 3.0, 1.0, 1.0, 3.0, 1.0])
    among = torch.tensor([False, True, True, True, True, True])
    assert largest(scores, among, 3).tolist() == [False, True, True, False, True, False]


def test_ties_go_to_the_lower_row_major_index_in_any_memory_format() -> None:
    scores = torch.zeros(2, 3, 2, 2).to(memory_format=torch.channels_last)
    among = torch.ones(2, 3, 2, 2, dtype=torch.bool).to(memory_format=torch.channels_last)
    chosen = largest(scores, among, 5)
    assert chosen.stride() == among.stride()
    assert chosen.flatten().nonzero().flatten().tolist() == [0, 1, 2, 3, 4]


def test_what_is_no_candidate_may_be_infinite_or_nan() -> None:
    among = torch.tensor([False, True, True])
    for other in (torch.inf, -torch.inf, torch.nan):
        scores = torch.tensor([other, 1.0, 2.0])
        assert largest(scores, among, 1).tolist() == [False, False, True]


def test_infinite_scores_rank_first_and_last() -> None:
    scores = torch.tensor([-torch.inf, 1.0, torch.inf, -3.0])
    among = torch.ones(4, dtype=torch.bool)
    assert largest(scores, among, 1).tolist() == [False, False, True, False]
    assert largest(scores, among, 3).tolist() == [False, True, True, True]
    assert largest(scores, among, 4).all()


@pytest.mark.parametrize(
    "scores",
    [
        torch.arange(12.0).reshape(4, 3).T,  # transposed
        torch.arange(24.0).reshape(3, 8)[:, ::2],  # with gaps
        torch.arange(4.0).expand(3, 4),  # expanded
        torch.arange(12.0).reshape(3, 4),
    ],
    ids=["transposed", "gaps", "expanded", "contiguous"],
)
def test_scores_in_any_layout(scores: Tensor) -> None:
    before = scores.clone()
    among = torch.ones(3, 4, dtype=torch.bool)
    among[2, 3] = False
    for shift in (0, 100):  # without and with negative scores
        assert torch.equal(largest(scores - shift, among, 5), _sorted_choice(scores, among, 5))
        assert torch.equal(largest(scores, among, 5), _sorted_choice(scores, among, 5))
    assert torch.equal(scores, before), "scores are not the caller's any more"


def test_nothing_to_choose() -> None:
    assert not largest(torch.rand(3, 2), torch.ones(3, 2, dtype=torch.bool), 0).any()


@pytest.mark.parametrize(("candidates", "count"), [(1, 2), (1, 3), (0, 1), (0, 3), (2, 3)])
def test_too_few_candidates(candidates: int, count: int) -> None:
    among = torch.arange(3) < candidates
    with pytest.raises(SparsityError, match=f"cannot choose {count} of {candidates} candidates"):
        largest(torch.tensor([1.0, 2.0, 3.0]), among, count)


def test_candidates_may_be_a_slice() -> None:
    scores, among = torch.arange(24.0).reshape(3, 8), torch.arange(24).reshape(3, 8) % 3 > 0
    for index in ((slice(None), slice(None, None, 2)), (slice(1, 3), slice(2, 6))):
        expected = _sorted_choice(scores[index], among[index], 4)
        assert torch.equal(largest(scores[index], among[index], 4), expected)
        assert torch.equal(largest(scores[index].clone(), among[index], 4), expected)
        assert torch.equal(largest(scores[index], among[index].clone(), 4), expected)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_nan_is_refused(count: int) -> None:
    scores = torch.tensor([torch.nan, 3.0, 2.0, 1.0])
    with pytest.raises(SparsityError, match="NaN"):
        largest(scores, torch.ones(4, dtype=torch.bool), count)


def _sorted_choice(scores: Tensor, among: Tensor, count: int) -> Tensor:
    candidates = [i for i, candidate in enumerate(among.flatten().tolist()) if candidate]
    flat = scores.flatten().tolist()
    best = sorted(candidates, key=lambda i: (-flat[i], i))[:count]
    chosen = torch.zeros(scores.numel(), dtype=torch.bool)
    chosen[best] = True
    return chosen.reshape(scores.shape)


@given(st.data())
@settings(max_examples=200)
def test_agrees_with_sorting(data: Any) -> None:
    shape = data.draw(st.sampled_from([(12,), (3, 4), (2, 3, 1, 2), (2, 3, 2, 1)]))
    dtype = data.draw(st.sampled_from(FLOATS + INTEGERS))
    low = data.draw(st.sampled_from([0, -3]))
    values = data.draw(st.lists(st.integers(low, 3), min_size=12, max_size=12))
    candidates = data.draw(st.lists(st.booleans(), min_size=12, max_size=12))
    count = data.draw(st.integers(0, sum(candidates)))
    scores = torch.tensor(values, dtype=dtype).reshape(shape)
    among = torch.tensor(candidates).reshape(shape)
    if scores.ndim == 4:
        scores, among = (t.to(memory_format=torch.channels_last) for t in (scores, among))
    assert torch.equal(largest(scores, among, count), _sorted_choice(scores, among, count))


MANY = 40_000


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32])
@pytest.mark.parametrize("count", [1, 300, 10_000, 39_500, 40_000])
@pytest.mark.parametrize(
    "scores",
    [
        torch.randn(MANY, generator=torch.Generator().manual_seed(0)) * 1000,
        torch.arange(MANY) % 7,
        torch.arange(MANY).remainder(5) == 0,  # as unlike a sample of every fifth as can be
        torch.arange(MANY).remainder(9) == 0,
    ],
    ids=["random", "ties", "misleading", "misleading others"],
)
def test_of_many_candidates(scores: Tensor, count: int, dtype: torch.dtype) -> None:
    scores, among = scores.to(dtype), torch.ones(MANY, dtype=torch.bool)
    assert torch.equal(largest(scores, among, count), _sorted_choice(scores, among, count))


def test_of_many_candidates_that_no_sample_sees() -> None:
    among = torch.zeros(5 * MANY, dtype=torch.bool)
    among[1::4] = True
    among[::5] = among[::9] = False  # those that are looked at, of as many as are left
    scores = torch.rand(5 * MANY, generator=torch.Generator().manual_seed(0))
    assert torch.equal(largest(scores, among, 2_000), _sorted_choice(scores, among, 2_000))


def test_the_least_and_the_greatest_integers() -> None:
    bounds = torch.iinfo(torch.int32)
    scores = torch.tensor([bounds.min, 0, bounds.max, bounds.min, bounds.max], dtype=torch.int32)
    among = torch.ones(5, dtype=torch.bool)
    assert largest(scores, among, 1).tolist() == [False, False, True, False, False]
    assert largest(scores, among, 2).tolist() == [False, False, True, False, True]
    assert largest(scores, among, 4).tolist() == [True, True, True, False, True]
    assert largest(scores, among, 5).all()


def test_zero_and_negative_zero_are_tied() -> None:
    among = torch.ones(3, dtype=torch.bool)
    assert largest(torch.tensor([-0.0, 0.0, -1.0]), among, 1).tolist() == [True, False, False]


def test_a_score_of_many_that_is_nan_is_refused() -> None:
    scores, among = torch.rand(MANY), torch.ones(MANY, dtype=torch.bool)
    scores[123] = torch.nan
    for count in (300, 10_000, 39_500):
        with pytest.raises(SparsityError, match="NaN"):
            largest(scores, among, count)
