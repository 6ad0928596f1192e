"""Pickles of containers and arrays, and pickles that would do harm."""

import codecs
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dstbench_sketches.unpickling import unpickle
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Call:
    """Unpickled, it calls a function, and gives the result a state."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


numbers = hnp.boolean_dtypes() | hnp.integer_dtypes() | hnp.floating_dtypes()


@given(
    hnp.arrays(numbers, hnp.array_shapes(min_dims=1), elements={"allow_nan": False}),
    st.sampled_from(PROTOCOLS),
    st.booleans(),
)
def test_arrays_become_lists(array, protocol, in_columns) -> None:
    held = {"array": np.asfortranarray(array) if in_columns else array, "other": (1.5, b"a", None)}
    expected = {"array": array.tolist(), "other": (1.5, b"a", None)}
    assert unpickle(pickle.dumps(held, protocol)) == expected


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickle_that_calls_something_is_refused_and_calls_nothing(tmp_path, protocol) -> None:
    marker = tmp_path / "harm"
    call = Call(os.system, (f"touch '{marker}'",))
    for harmful in call, np.array([call]):
        content = pickle.dumps([harmful], protocol)
        with pytest.raises(pickle.UnpicklingError, match=r"not of numbers|system is neither"):
            unpickle(content)
        assert not marker.exists()
        pickle.loads(content)
        assert marker.exists()
        marker.unlink()


@pytest.mark.parametrize("value", [Path("x"), np.random.default_rng(), print, np.float64(1)])
def test_only_containers_and_arrays_are_read(value) -> None:
    with pytest.raises(pickle.UnpicklingError, match="neither a container nor an array"):
        unpickle(pickle.dumps(value))


RECONSTRUCT, EMPTY, _ = np.empty(0).__reduce_ex__(2)
FROM_BUFFER = np.empty(0).__reduce_ex__(5)[0]
FLOAT, OBJECT = np.dtype("f8"), np.dtype("O")


@pytest.mark.parametrize(
    "harmful",
    [
        # Whose elements would be read from wherever in the memory the bytes say.
        Call(np.ndarray, ((2,), "O", b"A" * 16)),
        Call(RECONSTRUCT, EMPTY, (1, (2,), OBJECT, False, b"A" * 16)),
        Call(RECONSTRUCT, EMPTY, (1, (2,), np.dtype([("a", "O")]), False, b"A" * 16)),
        Call(RECONSTRUCT, EMPTY, (1, (2,), OBJECT, False, [1, 2])),
        Call(FROM_BUFFER, (b"A" * 16, OBJECT, (2,), "C")),
        # Whose size is not that of their bytes.
        Call(np.ndarray, ((1 << 40,),)),
        Call(np.ndarray, ((1 << 40,), "f8", b"A" * 8, 0, (0,))),
        Call(RECONSTRUCT, EMPTY, (1, (1 << 40,), FLOAT, False, b"A" * 16)),
        Call(FROM_BUFFER, (b"A" * 16, FLOAT, (1 << 40,), "C")),
        # With the state of another type.
        Call(
            RECONSTRUCT,
            EMPTY,
            (
                1,
                (2,),
                Call(np.dtype, ("V8",), (3, "|", None, ("a",), {"a": (OBJECT, 0)}, 8, 1, 27)),
            ),
        ),
    ],
)
def test_arrays_that_numpy_would_not_pickle_are_refused(harmful) -> None:
    with pytest.raises((pickle.UnpicklingError, ValueError, TypeError)):
        unpickle(pickle.dumps(harmful))


def test_an_array_of_nothing_is_not_a_billion_empty_lists() -> None:
    content = pickle.dumps(Call(FROM_BUFFER, (b"", FLOAT, (1 << 30, 0), "C")))
    assert unpickle(content) == []


def test_a_pickle_cannot_change_what_others_are_read_with() -> None:
    array = pickle.dumps(np.arange(3), 2)
    harm = pickle.dumps((None, {"__defaults__": 3, "__setstate__": 3}), 2)[2:-1]
    for name in b"cnumpy\ndtype\n", b"cnumpy._core.multiarray\n_reconstruct\n":
        unpickle(b"\x80\x02" + name + harm.replace(b"K\x03", b"N") + b"b.")
    assert unpickle(array) == [0, 1, 2]


def test_a_few_bytes_do_not_become_many_values() -> None:
    """An array's bytes are said once, and its shape can wrap each of them in many lists."""
    data, text = bytes(100_000), "a" * 100_000
    for many in (
        [Call(FROM_BUFFER, (data, np.dtype("u1"), (100_000,), "C")) for _ in range(100)],
        Call(FROM_BUFFER, (data, np.dtype("u1"), (100_000, *[1] * 20), "C")),
        Call(RECONSTRUCT, EMPTY, (1, (100_000, *[1] * 20), np.dtype("u1"), False, data)),
        [Call(codecs.encode, (text, "latin1")) for _ in range(100)],
    ):
        with pytest.raises(pickle.UnpicklingError, match="more values than its bytes"):
            unpickle(pickle.dumps(many, 4))


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02]r\xff\xff\xff\x7f.",  # kept as object 2,147,483,647
        b"]p2147483647\n.",
        b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b".",  # so many bytes follow
        b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b".",
        b"\x8b\xff\xff\xff\x7f.",
    ],
)
def test_sizes_that_are_not_there_are_refused(content) -> None:
    with pytest.raises((pickle.UnpicklingError, ValueError)):
        unpickle(content)
