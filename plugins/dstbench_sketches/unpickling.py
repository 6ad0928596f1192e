"""Pickles of plain containers and arrays of numbers, read without running what is in them."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections.abc import Callable
from typing import Any

import numpy as np


def unpickle(content: bytes) -> Any:
    """What a pickle of containers, strings, numbers and NumPy arrays of numbers holds.

    Arrays become lists: their pickles name NumPy's functions, which would take addresses from a
    pickle, and none of them is called. May raise any exception for what is not such a pickle, but
    has neither called anything else nor taken much more memory than ``content`` has.
    """
    for opcode, argument, _ in pickletools.genops(content):
        # Python reserves memory for as many objects as the highest number that one is kept under.
        if "PUT" in opcode.name and int(argument or 0) > len(content):
            raise pickle.UnpicklingError(f"object {argument} of {len(content)} bytes")
    return _Unpickler(io.BytesIO(content)).load()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        stand_in = _STAND_INS.get((module.replace("numpy.core", "numpy._core"), name))
        if stand_in is None:
            raise pickle.UnpicklingError(f"{module}.{name} is neither a container nor an array")
        # A new function each time, as a pickle can set the attributes of what it is given.
        return lambda *arguments: stand_in(*arguments)


class _Dtype:
    """The stand-in for ``numpy.dtype``: of integers, floating-point numbers or truth values."""

    def __init__(self, code: str, *_: object) -> None:
        if not re.fullmatch(r"[biuf]\d+", code):
            raise pickle.UnpicklingError(f"an array of {code!r}, not of numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(list[Any]):
    """The stand-in for the empty array that a pickle makes and then fills."""

    def __init__(self, *_: object) -> None:
        super().__init__()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, in_columns, content = state
        self.extend(_values(content, dtype, shape, "F" if in_columns else "C"))


def _values(content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: Any) -> list[Any]:
    """The rows of an array, as lists."""
    array = np.frombuffer(content, dtype.dtype).reshape(shape, order=order)
    return array.tolist() if array.size else []


def _latin1(text: str, encoding: str) -> bytes:
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
