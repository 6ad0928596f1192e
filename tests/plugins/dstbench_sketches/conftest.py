from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote

import pytest
import torch

from dstbench.cache import Cache
from dstbench.contracts import Workspace


@dataclass
class Told:
    """A workspace, and what it was told."""

    workspace: Workspace
    messages: list[str]


@pytest.fixture
def told(tmp_path: Path) -> Told:
    messages: list[str] = []
    workspace = Workspace(torch.device("cpu"), Cache(tmp_path / "cache"), messages.append)
    return Told(workspace, messages)


@dataclass
class Web:
    """A server on this machine: files by their paths, and how much of them was sent."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    sent: int = 0
    requests: list[str] = field(default_factory=list)
    cut_off_at: int | None = None
    """Bytes after which a connection breaks."""


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(self.path)
            web.requests.append(path)
            if path not in web.files:
                self.send_error(404)
                return
            content = web.files[path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            try:
                for start in range(0, len(content[: web.cut_off_at]), 4096):
                    self.wfile.write(content[start : start + 4096][: web.cut_off_at])
                    web.sent += 4096
            except OSError:  # the client has read enough
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    web.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield web
    server.shutdown()
    thread.join()
    server.server_close()
