"""Downloads that are cut off, and gone on with."""

from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from dstbench.download import download

FILE = bytes(range(256)) * 1000
SUM = sha256(FILE).hexdigest()


class Server:
    """A server of one file, and how it behaves."""

    def __init__(self) -> None:
        self.url = ""
        self.content = FILE
        self.headers = {"ETag": '"1"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        self.gives_ranges = True
        self.looks_at_if_range = True
        self.most = 100_000
        self.asked: list[str | None] = []
        """The range of each request."""
        self.sent = 0


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers["Range"]
            server.asked.append(wanted)
            begin = 0
            same = self.headers["If-Range"] in server.headers.values()
            if wanted and server.gives_ranges and (same or not server.looks_at_if_range):
                begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if begin and begin >= len(server.content):
                self.send_error(416)
                return
            rest = server.content[begin:]
            self.send_response(206 if begin else 200)
            for name, value in server.headers.items():
                self.send_header(name, value)
            if begin:
                size = len(server.content)
                self.send_header("Content-Range", f"bytes {begin}-{size - 1}/{size}")
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[: server.most])
            server.sent += len(rest[: server.most])

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        server.url = f"http://127.0.0.1:{listening.server_port}/file"
        Thread(target=listening.serve_forever, daemon=True).start()
        yield server
        listening.shutdown()


def test_it_goes_on_where_it_was_cut_off(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "file"
    for _ in range(2):
        with pytest.raises(OSError, match=r"it ended after \d+,000 of 256,000 bytes"):
            download(server.url, path, SUM)
        assert not path.exists()
    download(server.url, path, SUM)
    assert path.read_bytes() == FILE
    assert server.asked == [None, "bytes=100000-", "bytes=200000-"]
    assert server.sent == len(FILE)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "change",
    [
        {"gives_ranges": False},
        {"headers": {}},
        {"headers": {"ETag": '"2"'}},
        {"headers": {"ETag": '"2"'}, "looks_at_if_range": False},
        {"headers": {"ETag": 'W/"1"', "Last-Modified": "Fri, 02 Jan 2026 00:00:00 GMT"}},
    ],
)
def test_what_may_be_another_file_is_begun_anew(
    server: Server, tmp_path: Path, change: dict[str, object]
) -> None:
    path = tmp_path / "file"
    with pytest.raises(OSError, match="it ended after"):
        download(server.url, path)
    for name, value in change.items():
        setattr(server, name, value)
    server.content = FILE[::-1]
    server.most = len(FILE)
    download(server.url, path)
    assert path.read_bytes() == FILE[::-1]


def test_nothing_is_left_to_get(server: Server, tmp_path: Path) -> None:
    """The process was stopped when all was there."""
    path = tmp_path / "file"
    with pytest.raises(OSError, match="it ended after"):
        download(server.url, path)
    (tmp_path / "file.partial").write_bytes(FILE)
    server.most = len(FILE)
    download(server.url, path, SUM)
    assert path.read_bytes() == FILE
    assert server.asked == [None, "bytes=256000-", None]


def test_a_file_that_is_not_the_expected_one_is_not_kept(server: Server, tmp_path: Path) -> None:
    path, server.most = tmp_path / "file", len(FILE)
    with pytest.raises(OSError, match=r"is another file: its SHA-256 is not 0"):
        download(server.url, path, "0" * 64)
    assert not path.exists()
    download(server.url, path, SUM)
    assert server.asked == [None, None]


def test_a_place_where_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="refused"):
        download("http://127.0.0.1:9/file", tmp_path / "file")
    assert list(tmp_path.iterdir()) == []
