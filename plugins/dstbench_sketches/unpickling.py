"""Pickles of plain containers and arrays of numbers, read without running what is in them."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections.abc import Callable
from itertools import accumulate
from operator import mul
from typing import Any

import numpy as np

VALUES_PER_BYTE = 4
"""Numbers and lists that arrays may become, at most; those that NumPy pickles become fewer."""


def unpickle(content: bytes) -> Any:
    """What a pickle of containers, strings, numbers and NumPy arrays of numbers holds.

    Arrays become lists: their pickles name NumPy's functions, which would take addresses from a
    pickle, and none of them is called. May raise any exception for what is not such a pickle, but
    has neither called anything else nor made more values than there are bytes in ``content``, or a
    few times that.
    """
    for opcode, argument, _ in pickletools.genops(content):
        # Python reserves memory for as many objects as the highest number that one is kept under.
        if "PUT" in opcode.name and int(argument or 0) > len(content):
            raise pickle.UnpicklingError(f"object {argument} of {len(content)} bytes")
    return _Unpickler(content).load()


class _Budget:
    """How many more values may be made: a pickle can say once what it makes a thousand times."""

    def __init__(self, values: int) -> None:
        self._left = values

    def spend(self, values: int) -> None:
        self._left -= values
        if self._left < 0:
            raise pickle.UnpicklingError("more values than its bytes can hold")


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        self._budget = _Budget(VALUES_PER_BYTE * len(content))

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        stand_in = _STAND_INS.get((module.replace("numpy.core", "numpy._core"), name))
        if stand_in is None:
            raise pickle.UnpicklingError(f"{module}.{name} is neither a container nor an array")
        # A new function each time, as a pickle can set the attributes of what it is given.
        return lambda *arguments: stand_in(self._budget, *arguments)


class _Dtype:
    """The stand-in for ``numpy.dtype``: of integers, floating-point numbers or truth values."""

    def __init__(self, _budget: _Budget, code: str, *_: object) -> None:
        if not re.fullmatch(r"[biuf]\d+", code):
            raise pickle.UnpicklingError(f"an array of {code!r}, not of numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(list[Any]):
    """The stand-in for the empty array that a pickle makes and then fills."""

    def __init__(self, budget: _Budget, *_: object) -> None:
        super().__init__()
        self._budget = budget

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, in_columns, content = state
        self.extend(_values(self._budget, content, dtype, shape, "F" if in_columns else "C"))


def _values(
    budget: _Budget, content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: Any
) -> list[Any]:
    """The rows of an array, as lists."""
    array = np.frombuffer(content, dtype.dtype).reshape(shape, order=order)
    if not array.size:
        return []
    budget.spend(sum(accumulate(array.shape, mul)))  # numbers, and the lists that they are in
    rows: list[Any] = array.tolist()
    return rows


def _latin1(budget: _Budget, text: str, encoding: str) -> bytes:
    budget.spend(len(text))
    return text.encode("latin1")


def _refused(*_: object) -> None:
    raise pickle.UnpicklingError("an array that is not as NumPy pickles it")


_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _refused,  # named, but not called
    ("numpy", "dtype"): _Dtype,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.numeric", "_frombuffer"): _values,
    ("_codecs", "encode"): _latin1,
}
"""Stand-ins for what the pickles of arrays name, in any protocol, before NumPy 2 or since."""
