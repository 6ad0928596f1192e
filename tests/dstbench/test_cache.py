"""The cache of folders."""

import errno
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstbench.cache import Cache, digest
from dstbench.checksums import MANIFEST
from dstbench.errors import StoreError


class Maker:
    """Makes a folder with one file, and counts how often."""

    def __init__(self, content: str) -> None:
        self.content = content
        self.calls = 0

    def __call__(self, folder: Path) -> None:
        self.calls += 1
        assert list(folder.iterdir()) == []
        (folder / "content").write_text(self.content)


def test_a_folder_is_made_once(tmp_path: Path) -> None:
    cache, first, second = Cache(tmp_path), Maker("first"), Maker("second")
    folder = cache.folder("latents", {"data": "x", "size": 4}, first)
    assert cache.folder("latents", {"size": 4, "data": "x"}, second) == folder
    assert (folder / "content").read_text() == "first"
    assert (first.calls, second.calls) == (1, 0)


def test_what_is_there(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert not cache.has("latents", {"data": "x"})
    cache.folder("latents", {"data": "x"}, Maker("first"))
    assert cache.has("latents", {"data": "x"})
    assert not cache.has("latents", {"data": "y"})
    assert not cache.has("features", {"data": "x"})


@pytest.mark.parametrize(("name", "key"), [("latents", {"data": "y"}), ("features", {"data": "x"})])
def test_another_name_or_key_is_another_folder(
    tmp_path: Path, name: str, key: dict[str, str]
) -> None:
    cache = Cache(tmp_path)
    first = cache.folder("latents", {"data": "x"}, Maker("first"))
    second = cache.folder(name, key, Maker("second"))
    assert (first / "content").read_text() == "first"
    assert (second / "content").read_text() == "second"


def test_a_half_made_folder_is_never_there(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    target = cache.folder("latents", {"data": "x"}, Maker("to learn the path"))
    for file in target.iterdir():
        file.unlink()
    target.rmdir()

    def fail(folder: Path) -> None:
        (folder / "half").write_text("of it")
        assert not target.exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.folder("latents", {"data": "x"}, fail)
    assert not target.exists()
    assert cache.folder("latents", {"data": "x"}, Maker("all of it")) == target
    assert {file.name for file in target.iterdir()} == {"content", "key.json", "checksums.json"}


def test_a_half_made_folder_is_gone_on_with_where_that_is_asked_for(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def fail(folder: Path) -> None:
        (folder / "half").write_text("of it")
        raise KeyboardInterrupt

    def go_on(folder: Path) -> None:
        assert (folder / "half").read_text() == "of it"
        (folder / "half").rename(folder / "whole")

    with pytest.raises(KeyboardInterrupt):
        cache.folder("latents", {"data": "x"}, fail, resumable=True)
    target = cache.folder("latents", {"data": "x"}, go_on, resumable=True)
    assert {file.name for file in target.iterdir()} == {"whole", "key.json", "checksums.json"}


def test_folders_within_folders(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def outer(folder: Path) -> None:
        inner = cache.folder("first-stage", {"data": "x"}, Maker("inner"))
        (folder / "copy").write_bytes((inner / "content").read_bytes())

    assert (cache.folder("latents", {"data": "x"}, outer) / "copy").read_text() == "inner"


def test_the_default_root_is_the_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSTBENCH_CACHE", str(tmp_path / "mine"))
    assert Cache().root == tmp_path / "mine"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DSTBENCH_CACHE", "~/mine")
    assert Cache().root == tmp_path / "mine"
    monkeypatch.delenv("DSTBENCH_CACHE")
    assert Cache().root.name == "dstbench"


def flip(path: Path) -> None:
    """Turn one bit of a file over, and leave no trace of it in its times."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def become_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("name", ["content", "key.json", MANIFEST])
@pytest.mark.parametrize(
    "harm",
    [flip, lambda path: path.write_bytes(b""), Path.unlink, become_a_pipe],
    ids=["flipped", "emptied", "removed", "pipe"],
)
def test_a_damaged_folder_is_made_anew(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    harm: Callable[[Path], object],
    name: str,
) -> None:
    cache, key = Cache(tmp_path), {"data": "x"}
    folder = cache.folder("latents", key, Maker("whole"))
    harm(folder / name)
    if harm is Path.unlink and name == MANIFEST:  # as earlier versions left it: it is believed
        assert cache.has("latents", key)
        return
    assert not cache.has("latents", key)
    with caplog.at_level(logging.WARNING, "dstbench"):
        assert cache.folder("latents", key, again := Maker("whole again")) == folder
    assert again.calls == 1
    assert (folder / "content").read_text() == "whole again"
    (message,) = caplog.messages
    assert message.startswith(f"{folder}: damaged (")
    assert sorted(os.listdir(tmp_path)) == [folder.name, f"{folder.name}.lock"]
    assert cache.folder("latents", key, never := Maker("never")) == folder
    assert never.calls == 0


def test_a_file_in_place_of_a_folder_is_damage(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    folder = cache.folder("latents", {}, Maker("whole"))
    folder.rename(tmp_path / "elsewhere")
    folder.write_text("in the way")
    assert cache.folder("latents", {}, Maker("whole")) == folder
    assert (folder / "content").read_text() == "whole"


def test_content_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dstbench import checksums

    cache = Cache(tmp_path)
    folder = cache.folder("latents", {}, Maker("whole"))
    monkeypatch.setattr(checksums, "_found_whole", {})  # as another process has it
    read: list[str] = []
    digest_of = checksums.file_digest
    monkeypatch.setattr(
        checksums, "file_digest", lambda path: (read.append(path.name), digest_of(path))[1]
    )
    for _ in range(3):
        assert cache.folder("latents", {}, Maker("never")) == folder
    assert sorted(read) == ["content", "key.json"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_cache_that_is_full_or_may_not_be_written_to(tmp_path: Path, number: int) -> None:
    def make(folder: Path) -> None:
        raise OSError(number, os.strerror(number), str(folder / "content"))

    with pytest.raises(StoreError, match=r"no cache here: .*; name another folder in DSTBENCH_C"):
        Cache(tmp_path).folder("latents", {}, make)


def test_a_maker_that_may_not_read_something_else_says_so(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/data/faces")

    with pytest.raises(PermissionError, match="/data/faces"):
        Cache(tmp_path).folder("latents", {}, make)


@pytest.mark.parametrize(
    ("given", "told"), [(None, "the cache"), ("~nosuchuser/x", "~nosuchuser/x"), ("~/x", "~/x")]
)
def test_a_cache_in_nobodys_home(
    monkeypatch: pytest.MonkeyPatch, given: str | None, told: str
) -> None:
    """A uid without a name, as containers have it."""

    def nobody(*_: object) -> None:
        raise KeyError("uid not found")

    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("DSTBENCH_CACHE", raising=False)
    if given:
        monkeypatch.setenv("DSTBENCH_CACHE", given)
    with pytest.raises(StoreError, match=f"^{told}: no such home folder is known; name a folder"):
        Cache()


SLOW = """
    import sys, time
    from pathlib import Path
    from dstbench.cache import Cache

    def make(folder):
        Path(sys.argv[1], "started").touch()
        (folder / "content").write_text("half")
        time.sleep(float(sys.argv[2]))
        (folder / "content").write_text("whole")

    Cache(Path(sys.argv[1])).folder("latents", {"data": "x"}, make)
"""


def start_slow_process(root: Path, seconds: float) -> "subprocess.Popen[bytes]":
    """Another process that makes the folder; it is in the middle of it when this returns."""
    process = subprocess.Popen([sys.executable, "-c", dedent(SLOW), str(root), str(seconds)])
    while not (root / "started").exists():
        assert process.poll() is None
        time.sleep(0.01)
    return process


def test_a_second_process_waits_for_the_first(tmp_path: Path) -> None:
    process, second = start_slow_process(tmp_path, 0.5), Maker("second")
    folder = Cache(tmp_path).folder("latents", {"data": "x"}, second)
    assert second.calls == 0
    assert (folder / "content").read_text() == "whole"
    assert process.wait(10) == 0


def test_a_cache_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"^.*/file/cache: there can be no cache here: Not a dir"):
        Cache(tmp_path / "file" / "cache").folder("latents", {}, Maker("mine"))


def test_a_process_that_is_killed_leaves_nothing_behind(tmp_path: Path) -> None:
    process = start_slow_process(tmp_path, 60)
    process.kill()
    assert process.wait(10) != 0
    mine = Maker("mine")
    folder = Cache(tmp_path).folder("latents", {"data": "x"}, mine)
    assert mine.calls == 1
    assert (folder / "content").read_text() == "mine"
    assert [path for path in os.listdir(tmp_path) if path.endswith(".partial")] == []


def test_what_a_killed_process_left_is_gone_on_with(tmp_path: Path) -> None:
    process = start_slow_process(tmp_path, 60)
    process.kill()
    assert process.wait(10) != 0

    def go_on(folder: Path) -> None:
        with (folder / "content").open("a") as file:
            file.write(", then mine")

    folder = Cache(tmp_path).folder("latents", {"data": "x"}, go_on, resumable=True)
    assert (folder / "content").read_text().endswith(", then mine")
    assert [path for path in os.listdir(tmp_path) if path.endswith(".partial")] == []


KEYS = st.dictionaries(
    st.text(max_size=4), st.integers() | st.text(max_size=4) | st.none(), max_size=4
)


@given(key=KEYS, other=KEYS)
def test_digests_differ_exactly_where_keys_do(
    key: dict[str, object], other: dict[str, object]
) -> None:
    assert digest(key) == digest(dict(reversed(key.items())))
    assert (digest(key) == digest(other)) == (key == other)
