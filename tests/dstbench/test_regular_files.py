"""Files that somebody else made: what is opened, how much is read, what is found."""

import errno
import os
import socket
from pathlib import Path

import pytest
import torch

from dstbench import files
from dstbench.cache import file_digest
from dstbench.errors import DataError, StoreError
from dstbench.files import LEADS_BACK, mapped, open_regular, read_regular, readable, walk


def special(folder: Path) -> dict[str, Path]:
    """One of each kind of what is no regular file, and links to them."""
    os.mkfifo(folder / "pipe")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(folder / "socket"))
    listening.close()
    (folder / "link").symlink_to("pipe")
    return {
        "a pipe": folder / "pipe",
        "a pipe, no": folder / "link",
        "a socket": folder / "socket",
        "a device": Path("/dev/zero"),
    }


def test_only_regular_files_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # as names of sockets are short
    for kind, path in special(Path()).items():
        for read in (open_regular, file_digest, lambda path: read_regular(path, 10)):
            with pytest.raises(OSError, match=rf"{kind}.* regular file"):
                read(path)
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "nowhere")


def test_a_link_to_a_file_is_as_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link", 5) == b"12345"
    with open_regular(tmp_path / "link") as file:
        assert file.read() == b"12345"


def test_no_more_is_read_than_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    with pytest.raises(OSError, match="more than the 4 bytes allowed"):
        read_regular(tmp_path / "file", 4)
    endless = Path("/proc/self/maps")  # of which the system says that it is empty
    if endless.exists():
        with pytest.raises(OSError, match="more than the 10 bytes"):
            read_regular(endless, 10)


def found(root: Path) -> dict[str, str]:
    return {each.name: each.problem for each in walk(root)}


def test_everything_below_a_folder_is_found(tmp_path: Path) -> None:
    for name in ("a", "b/c", "b/.hidden", ".git/d", "__MACOSX/e", "b/f/g"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / "pipe")
    assert found(tmp_path) == dict.fromkeys(["a", "b/c", "b/f/g", "pipe"], "")


def test_links_are_followed_and_end(tmp_path: Path) -> None:
    for folder in "one", "two":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").touch()
    (tmp_path / "one" / "two").symlink_to("../two")
    (tmp_path / "two" / "one").symlink_to("../one")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "gone").symlink_to("nowhere")
    assert found(tmp_path) == {
        "one/file": "",
        "one/two/file": "",
        "one/two/one": LEADS_BACK,
        "two/file": "",
        "two/one/file": "",
        "two/one/two": LEADS_BACK,
        "self": "Too many levels of symbolic links",
        "gone": "No such file or directory",
    }


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in "open", "closed":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").touch()
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if path.name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert found(tmp_path) == {"open/file": "", "closed": "Permission denied"}


def test_links_that_make_endlessly_many_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_FOLDERS", 1000)
    for n in range(8):
        (tmp_path / f"{n}").mkdir()
        for other in range(8):
            (tmp_path / f"{n}" / f"{other}").symlink_to(tmp_path / f"{other}")
    with pytest.raises(DataError, match="more than 1,000 folders"):
        list(walk(tmp_path))


def test_a_name_that_is_no_text_can_be_said(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")).touch()
    (only,) = walk(tmp_path)
    assert only.name == r"caf\xe9"
    assert only.path.exists()
    assert readable("café") == "café"


def test_a_mapped_file_is_as_large_as_its_numbers(tmp_path: Path) -> None:
    path = tmp_path / "numbers"
    path.write_bytes(torch.arange(6, dtype=torch.int32).numpy().tobytes())
    assert mapped(path, (2, 3), torch.int32).tolist() == [[0, 1, 2], [3, 4, 5]]
    for shape in (7,), (5,):
        with pytest.raises(StoreError, match=rf"has 24 bytes, not {4 * shape[0]}"):
            mapped(path, shape, torch.int32)
    path.write_bytes(b"")
    assert mapped(path, (0, 3), torch.int32).shape == (0, 3)
