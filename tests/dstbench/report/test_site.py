"""The static site: what is written, what is escaped, and what is never overwritten."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest

import dstbench
from dstbench.errors import ConfigError, StoreError
from dstbench.records import Record
from dstbench.report import site as sites
from dstbench.report.results import Results

MakeRecord = Callable[..., Record]
Make = Callable[..., Path]


@pytest.fixture
def make(keep: Callable[..., Path], make_record: MakeRecord, tmp_path: Path) -> Make:
    """Makes the results of a benchmark with a done cell, and a sparse one."""

    def make(name: str, **fields: object) -> Path:
        records = [make_record(fid=1, **fields), make_record("static", 0.5, fid=2, **fields)]
        return keep(tmp_path / "results" / name, records)

    return make


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports are not written, which would take a second each."""

    def write(self: Results, to: Path) -> None:
        to.mkdir()
        (to / "report.html").write_text(self.name)

    monkeypatch.setattr(Results, "write_report", write)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_an_index_and_all_of_each_benchmark(make: Make, make_record: MakeRecord, keep, tmp_path):
    mine, yours = make("mine"), make("yours", cell={"dataset": "<b>faces"})
    keep(mine, [make_record("rigl", 0.5, status="failed", error="<script>")])
    (mine / "report.html").write_text("a stranger's")

    dstbench.publish([mine, yours], tmp_path / "site")

    site = tmp_path / "site"
    found = files(site)
    for name in ("mine", "yours"):
        for file in ("report.html", "leaderboard.md", "leaderboard.csv", "cells.csv",
                     "comparisons.csv", "fid_vs_sparsity.png", "samples.png"):  # fmt: skip
            assert f"{name}/{file}" in found
    assert "stranger" not in (site / "mine" / "report.html").read_text()
    assert not any("cells/" in name or name.endswith("layout.json") for name in found)

    index = (site / "index.html").read_text()
    assert "<h1>Benchmarks</h1>" in index
    assert "&lt;b&gt;faces" in index
    assert "1 failed" in index
    assert not re.search(r"https?:|<b>|<script", index)
    addresses = re.findall(r'(?:href|src)="([^"]+)"', index)
    assert addresses
    for address in addresses:
        assert unquote(address) in found


@pytest.mark.usefixtures("quick")
def test_a_site_is_written_anew(make: Make, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()  # an empty one is as good as none
    dstbench.publish([make("mine"), make("yours")], site)
    assert {"mine/report.html", "yours/report.html"} < files(site)
    dstbench.publish([tmp_path / "results" / "mine"], site)
    assert files(site) == {"index.html", "mine/report.html", ".nojekyll", sites.MADE}
    assert sorted(os.listdir(tmp_path)) == ["results", "site"]


@pytest.mark.usefixtures("quick")
def test_what_was_not_made_here_stays(make: Make, tmp_path: Path) -> None:
    mine, site = make("mine"), tmp_path / "site"
    with pytest.raises(StoreError, match="no site that dstbench has published"):
        dstbench.publish([mine], mine)
    dstbench.publish([mine], site)

    (site / "CNAME").write_text("example.org")
    with pytest.raises(StoreError, match="site: stays as it is: it has CNAME; name another"):
        dstbench.publish([mine], site)
    (site / "CNAME").unlink()
    (site / "mine" / "link").symlink_to("/")
    with pytest.raises(StoreError, match="it has mine/link"):
        dstbench.publish([mine], site)
    (site / "mine" / "link").unlink()

    for told in ("{", "[]", '{"files": 3}', '{"form": 2, "files": []}', '{"form": 1}'):
        (site / sites.MADE).write_text(told)
        with pytest.raises(StoreError, match="no site that dstbench has published"):
            dstbench.publish([mine], site)
    (tmp_path / "link").symlink_to(site)
    (tmp_path / "file").write_text("")
    for other in ("link", "file"):
        with pytest.raises(StoreError, match="stays as it is"):
            dstbench.publish([mine], tmp_path / other)


@pytest.mark.usefixtures("quick")
def test_a_site_appears_whole_or_not_at_all(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, site = make("mine"), tmp_path / "site"
    dstbench.publish([mine], site)
    before = files(site)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sites, "_write_index", stop)
    with pytest.raises(KeyboardInterrupt):
        dstbench.publish([mine, make("yours")], site)
    assert files(site) == before
    assert json.loads((site / sites.MADE).read_text())["files"]
    assert sorted(os.listdir(tmp_path)) == ["results", "site"]


@pytest.mark.usefixtures("quick")
def test_names_that_are_no_addresses(make: Make, tmp_path: Path) -> None:
    mine = make("mine")
    (tmp_path / "others").mkdir()
    mine.rename(tmp_path / "others" / "Mine")
    with pytest.raises(ConfigError, match="several folders are called 'mine'"):
        dstbench.publish([make("mine"), tmp_path / "others" / "Mine"], tmp_path / "site")
    with pytest.raises(ConfigError, match="'a b' cannot be a part of an address"):
        dstbench.publish([make("a b")], tmp_path / "site")
    with pytest.raises(StoreError, match="no records here"):
        dstbench.publish([tmp_path / "nowhere"], tmp_path / "site")
    assert not (tmp_path / "site").exists()
