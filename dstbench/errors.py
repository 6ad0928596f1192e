"""What dstbench raises when it was asked for something it cannot do.

The command line prints the message of any of these and exits with code 2; library users catch
:class:`DstbenchError` or one of its kinds.
"""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "ConfigError",
    "CountingError",
    "DataError",
    "DivergedError",
    "DstbenchError",
    "HeldError",
    "PluginError",
    "ScoreError",
    "SparsityError",
    "StoreError",
]


class DstbenchError(Exception):
    """Base of everything dstbench raises on purpose; its message says what would be right."""


class ConfigError(DstbenchError):
    """A benchmark file (or a setting in it) is wrong."""


class PluginError(DstbenchError):
    """A plugin is unknown, broken, or clashes with another one."""


class SparsityError(DstbenchError):
    """A sparsity, layer distribution or mask that is not possible for this network."""


class DataError(DstbenchError):
    """A dataset is missing, damaged or too small for what was asked."""


class CountingError(DstbenchError):
    """FLOPs cannot be counted honestly for this network."""


class DivergedError(DstbenchError):
    """A network in training, or what it generates, is no longer made of finite numbers."""


class ScoreError(DstbenchError):
    """A score cannot be computed from these samples or with this feature extractor."""


class StoreError(DstbenchError):
    """What is on disk is in use by another process, or is not what dstbench wrote."""


class HeldError(StoreError):
    """A cell is being run by another process."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The known word nearest to ``word``, if any is near, and the list of all of them."""
    words = sorted(set(known))
    if not words:
        return "there are none"
    listed = f"known: {', '.join(words)}"
    near = get_close_matches(word, words, n=1)
    return f"did you mean '{near[0]}'? ({listed})" if near else listed
