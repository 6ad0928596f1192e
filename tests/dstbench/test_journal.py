"""Files that are made part by part."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dstbench.journal import Journal

PARTS = [(b"first", {"n": 1}), (b"", None), (b"third\n", ["é\n"])]


def opened(path: Path) -> tuple[Journal, list[tuple[bytes, Any]]]:
    found: list[tuple[bytes, Any]] = []
    return Journal(path, lambda content, note: found.append((content, note))), found


def written(path: Path) -> Path:
    """The journal beside a file in three parts."""
    journal, found = opened(path)
    with journal:
        for part in PARTS:
            journal.add(*part)
    assert found == PARTS
    return path.with_name(f"{path.name}.parts.partial")


def test_what_is_there_is_found_and_added_to(tmp_path: Path) -> None:
    path = tmp_path / "file"
    written(path)
    journal, found = opened(path)
    with journal:
        assert found == PARTS
        journal.add(b"fourth")
    assert found == [*PARTS, (b"fourth", None)]
    assert path.read_bytes() == b"firstthird\nfourth"


def change(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "whole"),
    [
        (lambda path, lines: change(path, 7), 2),
        (lambda path, lines: change(path, 0), 0),
        (lambda path, lines: path.write_bytes(path.read_bytes()[:-1]), 2),
        (lambda path, lines: path.write_bytes(path.read_bytes() + b"of the next"), 3),
        (lambda path, lines: path.write_bytes(b""), 0),
        (lambda path, lines: change(lines, 3), 0),
        (lambda path, lines: lines.write_bytes(lines.read_bytes()[:-1]), 2),
        (lambda path, lines: lines.write_bytes(lines.read_bytes() + b"[3, "), 3),
        (lambda path, lines: lines.write_bytes(lines.read_bytes() + b"[-1, 1, 2]\n{}\n"), 3),
        (lambda path, lines: lines.unlink(), 0),
    ],
)
def test_parts_are_there_up_to_the_first_that_is_not_whole(
    tmp_path: Path, harm: Callable[[Path, Path], object], whole: int
) -> None:
    path = tmp_path / "file"
    harm(path, written(path))
    journal, found = opened(path)
    with journal:
        assert found == PARTS[:whole]
        for part in PARTS[whole:]:
            journal.add(*part)
    assert found == PARTS
    assert path.read_bytes() == b"firstthird\n"
    again, found = opened(path)
    with again:
        assert found == PARTS
