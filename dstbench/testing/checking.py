"""A check: one promise of a plugin, and the report where it is broken."""

from __future__ import annotations

import functools
import inspect
import random
import shutil
import textwrap
import traceback
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Any, TypeVar
from unittest import SkipTest

import numpy as np
import torch

from dstbench.cache import Cache
from dstbench.contracts import Data, Workspace
from dstbench.settings import PluginSettings

S = TypeVar("S", bound="Subject")

HERE = Path(__file__).parent


class CheckFailed(AssertionError):  # noqa: N818
    """A promise that is broken: what was promised, what happened, and how to see it again."""

    def __init__(self, promised: str, happened: str, reproduce: str) -> None:
        self.promised = promised
        self.happened = happened
        self.reproduce = reproduce
        super().__init__(
            f"\nPromised: {promised}\nHappened: {_indented(happened)}\n"
            f"Reproduce:\n    {_indented(reproduce)}"
        )


class Broken(Exception):  # noqa: N818
    """What happened instead of what was promised; :class:`Check` makes a report of it."""

    def __init__(self, happened: str, reproduce: str = "") -> None:
        super().__init__(happened)
        self.happened = happened
        self.reproduce = reproduce


@dataclass
class Subject:
    """A plugin's class, and what it is checked with."""

    cls: type[Any]
    given: Mapping[str, Any]
    """Settings, put over the class's ``trial_settings``."""
    given_data: Data | None = None
    """Data that a model is checked on, in place of synthetic data."""

    @property
    def values(self) -> dict[str, Any]:
        """The settings as a benchmark would have them."""
        return merged(getattr(self.cls, "trial_settings", {}), self.given)

    @property
    def settings(self) -> PluginSettings:
        settings: PluginSettings = self.cls.Settings(**self.values)
        return settings


@dataclass(frozen=True)
class Check:
    """One promise of a plugin, checked by a call.

    A call raises :class:`CheckFailed` where the promise is broken, or where the plugin raises; and
    :class:`unittest.SkipTest`, which pytest shows as skipped, where it cannot be checked.
    """

    name: str
    promise: str
    """The promise, in one sentence."""
    _body: Callable[[], None] = field(repr=False)
    _again: str = field(repr=False)
    """Python code that runs this check alone."""

    def __str__(self) -> str:
        return self.name

    def __call__(self) -> None:
        __tracebackhide__ = True  # pytest's: the report says it all
        try:
            with seeded(0), _one_thread():
                self._body()
        except Broken as broken:
            reproduce = broken.reproduce or self._again
            raise CheckFailed(self.promise, broken.happened, reproduce) from None
        except SkipTest:
            raise
        except (Exception, SystemExit) as error:
            raise CheckFailed(self.promise, _told(error), self._again) from None


def make_check(function: Callable[[S], None], subject: S) -> Check:
    """The check of a function, whose name names it, and whose docstring is the promise."""
    name = function.__name__.replace("_", "-")
    promise = " ".join((function.__doc__ or "").replace("``", "").split())
    return Check(name, promise, lambda: function(subject), _again(name, subject))


def merged(values: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with those of ``over`` in their place, tables merged key by key."""
    result = dict(values)
    for key, value in over.items():
        below = result.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        result[key] = merged(below, value) if both else value  # type: ignore[arg-type]
    return result


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A context in which the global generators of torch, NumPy and Python are seeded; they are
    restored after it."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def empty_workspace() -> Workspace:
    """A workspace on the CPU, with an empty cache that is deleted with it."""
    folder = Path(mkdtemp(prefix="dstbench-check-"))
    cache = Cache(folder)
    weakref.finalize(cache, shutil.rmtree, folder, ignore_errors=True)
    return Workspace(torch.device("cpu"), cache)


@contextmanager
def _one_thread() -> Iterator[None]:
    """A single thread of torch: more would only slow small networks down, and may change sums."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def imports(cls: type[Any]) -> str:
    """The line that imports a class."""
    return f"from {cls.__module__} import {cls.__qualname__}"


def _again(name: str, subject: Subject) -> str:
    cls = subject.cls
    settings = f", {dict(subject.given)!r}" if subject.given else ""
    return "\n".join(
        [
            "from dstbench.testing import checks",
            imports(cls),
            f"next(c for c in checks({cls.__qualname__}{settings}) if str(c) == {name!r})()",
        ]
    )


def _told(error: BaseException) -> str:
    """The traceback of a plugin's exception, from where it leaves the suite."""
    frames = error.__traceback__
    while frames is not None and frames.tb_next is not None and _is_ours(frames):
        frames = frames.tb_next
    text = "".join(traceback.format_exception(type(error), error, frames)).strip()
    return f"{type(error).__name__} was raised\n{text}"


def _is_ours(frame: TracebackType) -> bool:
    """Whether a frame is one of the suite's own, cached properties included."""
    file = inspect.getfile(frame)
    return HERE in Path(file).parents or file == functools.__file__


def _indented(text: str) -> str:
    """The text with all lines indented but the first, which follows a heading."""
    return textwrap.indent(text, "    ").lstrip()
