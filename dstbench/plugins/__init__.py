"""What is plugged in: hooks, discovery, descriptions, and what a plugin's failure costs."""

from dstbench.plugins.registry import PINS

__all__ = ["PINS"]  # all that plugins need of it
