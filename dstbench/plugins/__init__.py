"""What is plugged in: hooks, discovery, descriptions, and what a plugin's failure costs."""

from dstbench.plugins.packages import require
from dstbench.plugins.registry import PINS

__all__ = ["PINS", "require"]  # all that plugins need of it
