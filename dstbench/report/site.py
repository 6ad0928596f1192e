"""The results of benchmarks as a static site, for a forge's pages or any other web server."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from dstbench.errors import ConfigError, StoreError
from dstbench.files import read_regular
from dstbench.report.results import Results, load_results
from dstbench.store.files import write_folder

if TYPE_CHECKING:
    from dstbench.report.index_page import Entry

MADE = ".dstbench-site.json"
"""The file by which a folder is known to be a site that was written here: it lists the others."""
FORM = 1

LARGEST_LIST = 2**22
"""Bytes of that file, at most."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")

PICTURE = "fid_vs_sparsity.png"


def publish(folders: Sequence[str | Path], to: str | Path) -> None:
    """Write a static site of results: an index, and of each benchmark its report, leaderboard,
    data and pictures, all made anew from its records.

    The site needs no server of its own, and its pages fetch nothing from elsewhere. It appears
    whole or not at all, and takes the place of an earlier one.

    Args:
        folders: results of benchmarks, such as ``results/quickstart``.
        to: the folder to write. If it is there, it is to be empty, or a site that was written by
            this function and has nothing else in it.

    Raises:
        ConfigError: for two folders of one name, and a name that cannot be an address.
        StoreError: for a folder without records, and one that is not to be overwritten.
    """
    to = Path(to)
    _require_own(to)
    every = [load_results(folder) for folder in folders]
    names = Counter(results.name.casefold() for results in every)
    for results in every:
        if names[results.name.casefold()] > 1:
            raise ConfigError(f"several folders are called '{results.name}'; rename one")
        if not _NAME.fullmatch(results.name):
            raise ConfigError(
                f"'{results.name}' cannot be a part of an address: rename the folder, with letters "
                "of ASCII, digits, '_', '.' and '-'"
            )

    def write(site: Path) -> None:
        for results in every:
            results.write_report(site / results.name)
        _write_index(every, site)

    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(
            prefix=f".{to.name}.", dir=to.parent, ignore_cleanup_errors=True
        ) as beside:
            write_folder(Path(beside) / "new", write)
            if to.exists():
                os.rename(to, Path(beside) / "old")
            os.rename(Path(beside) / "new", to)
    except OSError as error:
        raise StoreError(f"{to}: cannot be written: {error.strerror or error}") from None


def _require_own(site: Path) -> None:
    """Raise :class:`StoreError` for a folder with anything in it that was not written here."""
    there = set(_files(site)) if site.is_dir() and not site.is_symlink() else {""}
    if not os.path.lexists(site) or not there:
        return
    made: set[str] = set()
    with suppress(OSError, ValueError, TypeError, KeyError):
        content = json.loads(read_regular(site / MADE, LARGEST_LIST))
        made = {MADE, *content["files"]} if content["form"] == FORM else made
    if others := sorted(there - made):
        what = f"it has {others[0]}" if made else "it is no site that dstbench has published"
        raise StoreError(f"{site}: stays as it is: {what}; name another folder, or a new one")


def _files(folder: Path) -> Iterator[str]:
    """The paths of all files and links below a folder."""
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_dir():
            yield path.relative_to(folder).as_posix()


def _write_index(every: Sequence[Results], site: Path) -> None:
    from dstbench.report.index_page import render_index

    entries = [_entry(results, site) for results in every]
    cells = sum(len(results.records) for results in every)
    summary = f"{len(every)} benchmark{'s' * (len(every) != 1)}, {cells} cells"
    (site / "index.html").write_text(render_index(entries, summary), encoding="utf-8")
    (site / ".nojekyll").touch()  # a forge is to serve the files as they are
    made = {"form": FORM, "files": sorted(_files(site))}
    (site / MADE).write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


def _entry(results: Results, site: Path) -> Entry:
    from dstbench.report.index_page import Entry

    folder = site / results.name
    kinds = (".html", ".md", ".csv", ".png")
    names = sorted(
        (path.name for path in folder.iterdir()),
        key=lambda name: (kinds.index(Path(name).suffix), name),
    )
    return Entry(
        results.name,
        f"{results.name}/report.html",
        Counter(record.status for record in results.records),
        facts=_facts(results),
        findings=_findings(results),
        links=[(name, f"{results.name}/{name}") for name in names],
        picture=f"{results.name}/{PICTURE}" if PICTURE in names else "",
    )


def _facts(results: Results) -> list[str]:
    """What was run, in words."""
    cells = [record.cell for record in results.records]
    sparsities = sorted({cell.sparsity for cell in cells if cell.sparsity})
    seeds = sorted({cell.seed for cell in cells})
    return [
        "; ".join(dict.fromkeys(cell.task for cell in cells)),
        f"{', '.join(dict.fromkeys(cell.sparsifier for cell in cells))}; "
        f"S = {', '.join(f'{each:g}' for each in sparsities) or 0}; "
        f"{len(seeds)} seed{'s' * (len(seeds) > 1)}; latest cell of "
        f"{max(record.started for record in results.records)[:10]}",
    ]


def _findings(results: Results) -> list[str]:
    """What each table warns of at its head, and recommends."""
    from dstbench.report.floors import warnings
    from dstbench.report.verdicts import recommendation

    found = []
    for table in results.tables:
        told = [*warnings(table), recommendation(table)]
        found += [f"{table.heading}: {text}" for text in told if text]
    return found
