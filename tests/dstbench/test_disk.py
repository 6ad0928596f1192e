"""Who may read what is written."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dstbench.cache import Cache
from dstbench.store import write_atomically
from dstbench.store.files import write_folder


@pytest.fixture(params=[0o022, 0o007, 0o077])
def usual(request: pytest.FixtureRequest) -> Iterator[int]:
    """The permissions of new files."""
    before = os.umask(request.param)
    yield 0o666 & ~request.param
    os.umask(before)


def save(path: Path) -> None:
    save_file({"a": torch.zeros(1)}, path)


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files_are_for_whom_the_user_wants(tmp_path: Path, usual: int) -> None:
    write_atomically(tmp_path / "weights", save)
    write_folder(tmp_path / "model", lambda folder: save(folder / "weights"))
    cached = Cache(tmp_path / "cache").folder(
        "network", {}, lambda folder: save(folder / "weights")
    )
    for folder in (tmp_path, tmp_path / "model", cached):
        assert permissions(folder / "weights") == usual
    assert not list(tmp_path.rglob("*.partial"))
