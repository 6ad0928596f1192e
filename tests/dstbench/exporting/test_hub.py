"""Uploads, to a hub of this machine."""

import base64
import json
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from huggingface_hub import constants

import dstbench
from dstbench.errors import PluginError, StoreError
from dstbench.exporting.hub import push
from dstbench.store import CellFolder


class Hub(HTTPServer):
    """What the hub is asked when a folder is uploaded, and its answers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.made: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.refuses = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.refuses:
            self._answer(403, {"error": "not yours"})
        elif self.path == "/api/repos/create":
            self.server.made.append(json.loads(body))
            self._answer(200, {"url": f"{self.server.address}/me/mine", "name": "me/mine"})
        elif self.path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            told = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in files
            ]
            self._answer(200, {"files": told})
        elif self.path.endswith("/commit/main"):
            for line in body.splitlines():
                part = json.loads(line)
                if part["key"] == "file":
                    content = base64.b64decode(part["value"]["content"])
                    self.server.files[part["value"]["path"]] = content
            where = f"{self.server.address}/me/mine/commit/0"
            self._answer(200, {"commitUrl": where, "commitOid": "0" * 40})
        else:
            self._answer(200, {"valid": True})

    def do_GET(self) -> None:
        self._answer(200, {"sha": "0" * 40, "id": "me/mine", "siblings": []})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    thread = Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def exported(trained: Callable[..., CellFolder], tmp_path: Path) -> Path:
    dstbench.export_model(trained().path, tmp_path / "out")
    return tmp_path / "out"


def test_all_of_the_folder_is_uploaded(hub: Hub, exported: Path) -> None:
    assert push(exported, "me/mine", public=False) == f"{hub.address}/me/mine"
    assert hub.files == {path.name: path.read_bytes() for path in exported.iterdir()}
    (made,) = hub.made
    assert made.get("private") is True or made.get("visibility") == "private"


def test_nothing_else_is(hub: Hub, exported: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    (exported / "config.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(StoreError, match="no file that dstbench export writes"):
        push(exported, "me/mine", public=False)
    with pytest.raises(StoreError, match="no exported model is here"):
        push(tmp_path, "me/mine", public=False)
    assert not hub.made


def test_what_the_hub_refuses_is_told(hub: Hub, exported: Path) -> None:
    hub.refuses = True
    with pytest.raises(StoreError, match=r"me/mine: not uploaded: .*403"):
        push(exported, "me/mine", public=True)


def test_without_the_package(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(PluginError, match=r"pip install 'dstbench\[hub\]'"):
        push(exported, "me/mine", public=False)
