"""Packages that one plugin needs and that an extra installs."""

from importlib import import_module
from typing import Any

from dstbench.errors import PluginError


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
