"""The server of a dashboard: for browsers of this machine alone, and for reading alone."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from dstbench.errors import ConfigError, StoreError
from dstbench.report.dashboard.pages import LivePages

LOOPBACK = "127.0.0.1"

OWN_NAMES = ("127.0.0.1", "localhost", "::1")
"""Hosts by which a browser may ask. A name that a stranger's page has made lead here is none."""

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline' blob:; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

HTML, PLAIN = "text/html; charset=utf-8", "text/plain; charset=utf-8"

logger = logging.getLogger("dstbench")


def serve(folder: Path, port: int, ready: Callable[[str], None]) -> None:
    """Serve a dashboard of a results folder until the process is interrupted.

    Args:
        folder: results of several benchmarks, or of one.
        port: the port on this machine; 0 is one that is free.
        ready: called with the dashboard's address once it can be opened.

    Raises:
        ConfigError: for a port that cannot be had.
        StoreError: if the folder is none.
    """
    with make_server(folder, port) as server:
        ready(f"http://{LOOPBACK}:{server.server_port}/")
        server.serve_forever()


def make_server(folder: Path, port: int) -> DashboardServer:
    """A server that does not serve yet; the errors are those of :func:`serve`."""
    if not folder.is_dir():
        raise StoreError(f"{folder}: no folder of results; run a benchmark first")
    try:
        return DashboardServer((LOOPBACK, port), LivePages(folder))
    except OSError as error:
        raise ConfigError(
            f"port {port} cannot be had: {error.strerror}; --port names another, 0 a free one"
        ) from None


class DashboardServer(ThreadingHTTPServer):
    """Answers each request in a thread, which does not keep the process from ending."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], pages: LivePages) -> None:
        super().__init__(address, Handler)
        self.pages = pages

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):  # a browser that went away
            logger.warning("dashboard: %s: %s", type(error).__name__, error)


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: DashboardServer
    server_version = "dstbench"
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        if not self._is_asked_by_a_name_of_ours():
            self._answer(HTTPStatus.FORBIDDEN, PLAIN, "Open this by the name localhost.\n")
            return
        path = urlsplit(self.path).path
        try:
            found = self._find(path)
        except Exception:
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, PLAIN, "The page cannot be made.\n")
            raise
        if found is None:
            self._answer(HTTPStatus.NOT_FOUND, PLAIN, "There is no such page.\n")
        else:
            self._answer(*found)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _find(self, path: str) -> tuple[HTTPStatus, str, str] | None:
        pages = self.server.pages
        match [unquote(part) for part in path.split("/")[1:]]:
            case [""]:
                return HTTPStatus.OK, HTML, pages.index()
            case ["version"]:
                return HTTPStatus.OK, PLAIN, pages.index_version()
            case [name]:
                if name in pages.benchmarks():
                    return HTTPStatus.FOUND, PLAIN, f"/{quote(name, safe='')}/"
            case [name, what]:
                benchmark = pages.benchmarks().get(name)
                if benchmark and what == "":
                    return HTTPStatus.OK, HTML, benchmark.report()
                if benchmark and what == "version":
                    return HTTPStatus.OK, PLAIN, benchmark.version()
        return None

    def _is_asked_by_a_name_of_ours(self) -> bool:
        hosts = self.headers.get_all("Host") or []
        try:
            return [urlsplit(f"//{host}").hostname in OWN_NAMES for host in hosts] == [True]
        except ValueError:
            return False

    def _answer(self, status: HTTPStatus, kind: str, text: str) -> None:
        content = text.encode(errors="backslashreplace")
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if status == HTTPStatus.FOUND:
            self.send_header("Location", text)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: what is asked for is nobody's news."""
