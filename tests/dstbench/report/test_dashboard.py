"""The dashboard: what it shows of a run, who may ask, and that it serves nothing else."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import pytest

from dstbench.errors import ConfigError, StoreError
from dstbench.records import Record
from dstbench.report.dashboard import pages
from dstbench.report.dashboard.server import DashboardServer, make_server
from dstbench.store import CellFolder

MakeRecord = Callable[..., Record]
Keep = Callable[..., Path]


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str


Ask = Callable[..., Answer]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of results, beside a file that is nobody's business."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "results").mkdir()
    return tmp_path / "results"


@pytest.fixture
def server(folder: Path) -> Iterator[DashboardServer]:
    with make_server(folder, 0) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def ask(server: DashboardServer) -> Ask:
    def ask(path: str, *, method: str = "GET", host: str | None = "localhost") -> Answer:
        connection = HTTPConnection("127.0.0.1", server.server_port, timeout=60)
        connection.putrequest(method, path, skip_host=True)
        if host is not None:
            connection.putheader("Host", host)
        connection.endheaders()
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        return Answer(response.status, dict(response.headers), text)

    return ask


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Reports are the number of their records, and their version; how many there were in each."""
    drawn: list[int] = []

    def render(every: list[pages.LiveBenchmark], title: str, live: str) -> str:
        drawn.append(len(every[0].records))
        return f"{title}: {drawn[-1]} records, {live}"

    monkeypatch.setattr("dstbench.report.page.render_page", render)
    return drawn


def test_benchmarks_with_their_counts(
    folder: Path, ask: Ask, keep: Keep, make_record: MakeRecord
) -> None:
    assert "0 benchmarks" in ask("/").text
    failed = make_record("rigl", 0.5, status="failed", error="because")
    keep(folder / "mine", [make_record(fid=1), make_record(seed=1, fid=2), failed])
    keep(folder / "yours <b>", [make_record(fid=1)])
    (folder / "no benchmark").mkdir()
    (folder / os.fsdecode(b"\xff") / "cells").mkdir(parents=True)  # no text can name it
    running = make_record("static", 0.5, cell={"training": {"steps": 100}}).cell
    cell = CellFolder(folder / "mine" / "cells" / running.id)
    cell.request(running)

    waiting = ask("/")
    with cell.locked():
        cell._lock._claimed_at = -10  # a heartbeat is due
        cell.heartbeat(7, 0.125)
        index = ask("/")

    assert waiting.status == index.status == 200
    assert "2 benchmarks" in index.text
    assert "1 waiting" in waiting.text
    for told in ("2 done", "1 running", "1 failed", f"<td>{running.id}</td>",
                 "<td>7 of 100</td>", "<td>0.125</td>", "ldm on digits"):  # fmt: skip
        assert told in index.text
    assert "waiting" not in index.text.partition("</style>")[2]
    assert 'href="yours%20%3Cb%3E/">yours &lt;b&gt;</a>' in index.text
    assert "no benchmark" not in index.text


def test_a_report_is_made_anew_when_records_change(
    folder: Path, ask: Ask, keep: Keep, make_record: MakeRecord, drawn: list[int]
) -> None:
    keep(folder / "mine", [make_record(fid=1)])
    first, version, index = ask("/mine/"), ask("/mine/version").text, ask("/version").text
    assert first.text == f"mine: 1 records, {version}"
    assert ask("/mine/") == first or ask("/mine/").text == first.text
    assert drawn == [1]

    keep(folder / "mine", [make_record(seed=1, fid=2)])

    later = ask("/mine/version").text
    assert later != version
    assert ask("/version").text != index
    assert ask("/mine/").text == f"mine: 2 records, {later}"
    assert drawn == [1, 2]
    (folder / "mine").rename(folder / "yours")
    assert ask("/mine/").status == 404
    assert ask("/yours/").status == 200


def test_the_report_is_that_of_the_run(
    folder: Path, ask: Ask, keep: Keep, make_record: MakeRecord
) -> None:
    cell = make_record().cell
    (folder / "mine" / "cells").mkdir(parents=True)
    CellFolder(folder / "mine" / "cells" / cell.id).request(cell)
    before = ask("/mine/")
    assert before.status == 200
    assert "no records here" in before.text
    assert ask("/mine/version").text in before.text

    keep(folder / "mine", [make_record(fid=1)])

    page = ask("/mine/").text
    assert "1 cell done" in page
    assert '<a href="../">all benchmarks</a>' in page
    assert ask("/mine/version").text in page


def test_one_benchmark_alone(keep: Keep, make_record: MakeRecord, tmp_path: Path) -> None:
    keep(tmp_path / "mine", [make_record(fid=1)])
    assert list(pages.LivePages(tmp_path / "mine").benchmarks()) == ["mine"]


def test_who_may_ask(ask: Ask) -> None:
    for host in ("localhost", "localhost:8765", "127.0.0.1:1", "[::1]:80", "LOCALHOST"):
        assert ask("/", host=host).status == 200
    for other in ("example.org", "localhost.example.org", "127.0.0.1.example.org:8765",
                  "10.0.0.1", "[::1", "", None, "localhost@example.org"):  # fmt: skip
        answer = ask("/", host=other)
        assert (answer.status, answer.text) == (403, "Open this by the name localhost.\n")


def test_only_this_machine_is_listened_to(server: DashboardServer) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize(
    "path",
    [
        "/secret", "/../secret", "/..%2fsecret", "/%2e%2e/secret", "/mine/../../secret",
        "/mine/cells", "/mine/cells/", "/mine/record.json", "/mine/..%2f..%2fsecret",
        "/mine/version/", "/mine%00/", "/index.html", "/no%20benchmark/", "/../results/mine/",
        "/" + "a" * 5000, "/%ff%fe",
    ],
)  # fmt: skip
def test_nothing_else_is_served(
    folder: Path, ask: Ask, keep: Keep, make_record: MakeRecord, path: str
) -> None:
    keep(folder / "mine", [make_record(fid=1)])
    (folder / "no benchmark").mkdir()
    answer = ask(path)
    assert (answer.status, answer.text) == (404, "There is no such page.\n")


def test_pages_say_how_they_may_be_used(
    folder: Path, ask: Ask, keep: Keep, make_record: MakeRecord
) -> None:
    keep(folder / "mine", [make_record(fid=1)])
    moved = ask("/mine?x=1")
    assert (moved.status, moved.headers["Location"]) == (302, "/mine/")
    head = ask("/", method="HEAD")
    assert head.text == ""
    assert int(head.headers["Content-Length"]) > 0
    assert head.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in head.headers["Content-Security-Policy"]
    assert "Python" not in head.headers["Server"]
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert ask("/", method=method).status == 501


def test_a_page_that_cannot_be_made_costs_no_other(
    folder: Path,
    ask: Ask,
    keep: Keep,
    make_record: MakeRecord,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise RuntimeError("a bug")

    keep(folder / "mine", [make_record(fid=1)])
    monkeypatch.setattr("dstbench.report.page.render_page", fail)
    assert ask("/mine/").status == 500
    assert ask("/").status == 200
    for _ in range(100):
        if caplog.messages:
            break
        time.sleep(0.02)
    assert caplog.messages == ["dashboard: RuntimeError: a bug"]


def test_a_port_that_cannot_be_had(server: DashboardServer, folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"port \d+ cannot be had: Address already in use; --por"):
        make_server(folder, server.server_port)
    with pytest.raises(StoreError, match="no folder of results"):
        make_server(folder / "nowhere", 0)


def test_a_browser_that_goes_away_is_no_error(
    server: DashboardServer, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.server_port)) as left:
            left.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[:10])
    assert ask("/").status == 200
    assert caplog.messages == []
