"""Published weights: downloaded once, checked, pinned; files that may hold code are not read."""

import hashlib
import os
import pickle
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from dstbench_features import clip, dinov2, inception
from dstbench_features.weights import Published
from safetensors.torch import save_file

from dstbench.cache import Cache
from dstbench.contracts import READY, Availability, Workspace
from dstbench.errors import ScoreError

ALL = [clip.PUBLISHED, *dinov2.PUBLISHED.values(), inception.PUBLISHED]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(torch.device("cpu"), Cache(tmp_path / "cache"))


@pytest.fixture
def published(tmp_path: Path) -> Iterator[Published]:
    """Weights at an address of this machine; ``site/weights.safetensors`` below the test's folder
    is what is served."""
    site = tmp_path / "site"
    site.mkdir()
    save_file({"weight": torch.arange(3)}, site / "weights.safetensors")
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=site)
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sha256 = hashlib.sha256((site / "weights.safetensors").read_bytes()).hexdigest()
    url = f"http://127.0.0.1:{server.server_port}/weights.safetensors"
    yield Published("mine", url, sha256, 1218)
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("published", ALL, ids=lambda each: each.url.rpartition("/")[2])
def test_what_is_published_is_pinned(published: Published) -> None:
    assert published.url.startswith("https://")
    assert re.fullmatch("[0-9a-f]{64}", published.sha256)
    if "huggingface.co" in published.url:
        assert re.search("/resolve/[0-9a-f]{40}/[^/]*[.]safetensors$", published.url)


def test_a_download_is_checked_and_cached(
    workspace: Workspace, published: Published, tmp_path: Path
) -> None:
    before = published.availability(None, workspace)
    assert before == Availability("download", f"1,218 MB from {published.url}")
    path = published.path(None, workspace)
    assert published.tensors(path)["weight"].tolist() == [0, 1, 2]
    assert published.availability(None, workspace) == READY
    (tmp_path / "site" / "weights.safetensors").unlink()
    assert published.path(None, workspace) == path


def test_a_download_that_is_not_what_was_published_is_not_kept(
    workspace: Workspace, published: Published, tmp_path: Path
) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "site" / "weights.safetensors")
    with pytest.raises(ScoreError, match=r"could not be downloaded \(.+ is another file") as raised:
        published.path(None, workspace)
    assert f"get {published.url} and name the file in its setting 'weights'" in str(raised.value)
    assert published.availability(None, workspace).state == "download"


@pytest.mark.parametrize("url", ["/nothing.safetensors", "http://127.0.0.1:1/w.safetensors"])
def test_a_download_that_fails_is_explained(
    workspace: Workspace, published: Published, url: str
) -> None:
    elsewhere = replace(published, url=url if "//" in url else published.url + url)
    with pytest.raises(ScoreError, match="of the feature extractor 'mine' could not be downloaded"):
        elsewhere.path(None, workspace)


def test_a_missing_file_is_named(
    workspace: Workspace, published: Published, tmp_path: Path
) -> None:
    for given in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ScoreError, match=f"names {given}, which is no file") as raised:
            published.path(given, workspace)
        missing = Availability("missing", str(raised.value))
        assert published.availability(given, workspace) == missing


class Intruder:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.remove, (str(self.victim),)


def test_files_that_may_hold_code_are_refused_unread(published: Published, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.touch()
    content = {"weight": Intruder(victim)}
    torch.save(content, tmp_path / "zipped.pth")
    (tmp_path / "raw.bin").write_bytes(pickle.dumps(content, protocol=2))
    (tmp_path / "empty.safetensors").touch()
    (tmp_path / "cut.safetensors").write_bytes((1000).to_bytes(8, "little") + b"{")
    for path in tmp_path.glob("*.*"):
        with pytest.raises(ScoreError, match=r"is no safetensors file .* may hold code") as raised:
            published.tensors(path)
        assert str(raised.value).endswith(f"it must be the file from {published.url}")
    assert victim.exists()
