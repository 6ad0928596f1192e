"""The way from a benchmark file to its cells."""

from dstbench.cell import Cell

__all__ = ["Cell"]  # all that plugins need of it
