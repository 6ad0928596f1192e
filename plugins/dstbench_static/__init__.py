"""Static sparse training: a random mask that never changes (Static-DM, arXiv 2504.21380)."""

from dstbench import hookimpl
from dstbench.sparsity import Sparsifier


class Static(Sparsifier):
    """A random mask, fixed before the first step (Mocanu et al. 2018; Evci et al. 2020)."""

    name = "static"


@hookimpl
def dstbench_sparsifiers() -> list[type[Sparsifier]]:
    return [Static]
