"""The text of a benchmark file."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from dstbench.errors import ConfigError, did_you_mean
from dstbench.files import read_regular

MOST = 2**22
"""Bytes of a benchmark file at most; what is larger is something else."""

_LINE = re.compile(r"at line (\d+)")
"""How an error of TOML tells where it is."""


def read_text(path: Path) -> str:
    """The file's text. Raises :class:`ConfigError` where it cannot be read."""
    try:
        # Some editors set a mark at the beginning.
        return read_regular(path, MOST).decode("utf-8-sig")
    except FileNotFoundError:
        near = (file.name for file in path.parent.glob("*.toml"))
        hint = did_you_mean(path.name, near)
        raise ConfigError(f"{path}: no such file; benchmarks in that folder: {hint}") from None
    except OSError as error:
        if path.is_dir():
            raise ConfigError(f"{path}: this is a folder; a benchmark is a TOML file") from None
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: this is not UTF-8, as TOML must be") from None


def parse(text: str, source: object) -> dict[str, Any]:
    """What a file's text says. Raises :class:`ConfigError`, which names the source, where it is not
    TOML."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        problem = "tables or arrays are nested too deeply"
    except ValueError as error:  # of TOML, and of integers of thousands of digits
        problem = str(error).partition("; use sys.")[0]
        problem = problem.replace("Cannot overwrite a value", "a key is there twice")
        if at := _LINE.search(problem):
            line = text.split("\n")[int(at[1]) - 1].strip()
            problem += f": {line:.80}"
    raise ConfigError(f"{source}: this is not valid TOML: {problem}")
