"""dstbench: a benchmark harness for sparse-to-sparse training of diffusion models.

``run``, ``plan``, ``load_results``, ``merge``, ``compare``, ``publish``, ``load_model`` and
``export_model`` are the way in from Python (:mod:`dstbench.api`); ``hookimpl`` marks the hooks of
plugins. All are imported when they are first used.

The import itself sets how long OpenMP's threads spin, unless the environment does
(:func:`dstbench.parallel.spin_briefly`): it comes before that of torch in the command line, in
worker processes, and in the tasks of Ray and Slurm.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dstbench.parallel import spin_briefly

if TYPE_CHECKING:
    from pluggy import HookimplMarker

    from dstbench.api import (
        Results,
        TwoResults,
        compare,
        export_model,
        load_model,
        load_results,
        merge,
        plan,
        publish,
        run,
    )

    __version__: str
    """The version of dstbench that is installed."""
    hookimpl: HookimplMarker
    """Marks the functions of a plugin that are hooks of dstbench."""

__all__ = [
    "Results",
    "TwoResults",
    "__version__",
    "compare",
    "export_model",
    "hookimpl",
    "load_model",
    "load_results",
    "merge",
    "plan",
    "publish",
    "run",
]

spin_briefly()


def __getattr__(name: str) -> Any:
    if name == "hookimpl":
        from pluggy import HookimplMarker

        value: Any = HookimplMarker("dstbench")
    elif name == "__version__":
        value = _version()
    elif name in __all__:
        value = getattr(import_module("dstbench.api"), name)
    else:
        raise AttributeError(f"module 'dstbench' has no attribute '{name}'")
    globals()[name] = value
    return value


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("dstbench")
    except PackageNotFoundError:  # an uninstalled checkout
        return "0+unknown"
