"""New processes, in which a plugin has to do what it has done in this one."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from operator import attrgetter
from typing import Any
from unittest import SkipTest

from dstbench.testing.checking import Broken


def require_importable(cls: type[Any]) -> None:
    """Skip the check where a new process could not import the class."""
    try:
        found = imported(cls.__module__, cls.__qualname__)
    except (ImportError, AttributeError):
        found = None
    if found is not cls or cls.__module__ == "__main__":
        raise SkipTest(f"a new process cannot import {cls.__qualname__} from {cls.__module__}")


def imported(module: str, qualname: str) -> Any:
    """The object of this qualified name in a module."""
    return attrgetter(qualname)(import_module(module))


def run_module(module: str, *arguments: str) -> str:
    """The standard output of ``python -m module``, in a process in which sets of strings have
    another order than here.

    Raises :class:`Broken`, with what the process wrote to standard error, where it fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise Broken(f"it failed in a new process\n{done.stderr.strip()}")
    return done.stdout
