"""The text of a benchmark file."""

from __future__ import annotations

from pathlib import Path

from dstbench.errors import ConfigError, did_you_mean
from dstbench.files import read_regular

MOST = 64 << 20
"""Bytes of a benchmark file at most; what is larger is something else."""


def read_text(path: Path) -> str:
    """The file's text. Raises :class:`ConfigError` where it cannot be read."""
    try:
        return read_regular(path, MOST).decode()
    except FileNotFoundError:
        near = (file.name for file in path.parent.glob("*.toml"))
        hint = did_you_mean(path.name, near)
        raise ConfigError(f"{path}: no such file; benchmarks in that folder: {hint}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: this is a folder; a benchmark is a TOML file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: this is not UTF-8, as TOML must be") from None
