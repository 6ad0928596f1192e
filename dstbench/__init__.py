"""dstbench: a benchmark harness for sparse-to-sparse training of diffusion models."""

from importlib.metadata import PackageNotFoundError, version

import pluggy

__all__ = ["__version__", "hookimpl"]

try:
    __version__ = version("dstbench")
except PackageNotFoundError:  # an uninstalled checkout
    __version__ = "0+unknown"

hookimpl = pluggy.HookimplMarker("dstbench")
"""Marks a plugin's function as an implementation of one of :mod:`dstbench.hookspecs`."""
