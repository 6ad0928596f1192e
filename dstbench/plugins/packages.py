"""Packages that one plugin needs and that an extra installs."""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from dstbench.errors import PluginError


def missing(packages: Mapping[str, str]) -> list[str]:
    """What pip is to install of optional packages, named by what they are imported under."""
    return sorted({extra for name, extra in packages.items() if not find_spec(name.split(".")[0])})


def require(package: str, needed_by: str, extra: str) -> Any:
    """The module of an optional package.

    Args:
        package: its name where it is imported.
        needed_by: what cannot do without, such as ``dataset 'kanjivg'``.
        extra: what pip is to install, such as ``dstbench[kanjivg]``.

    Raises :class:`~dstbench.errors.PluginError`, which says so, where it cannot be imported.
    """
    try:
        return import_module(package)
    except ImportError as error:
        why = "" if error.name == package else f" ({error})"
        raise PluginError(
            f"{needed_by} needs the package {package}{why}: pip install '{extra}'"
        ) from error
