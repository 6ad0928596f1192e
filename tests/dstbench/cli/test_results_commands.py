"""The commands about several results, as they are typed."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

import pytest

from dstbench import cli
from dstbench.records import Record
from dstbench.store import Store

MakeRecord = Callable[..., Record]


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Dstbench = Callable[..., Outcome]


@pytest.fixture
def dstbench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Dstbench:
    """Runs the command line in this process, in a folder with nothing but results."""
    monkeypatch.chdir(tmp_path)

    def dstbench(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["dstbench", *arguments])
        with pytest.raises(SystemExit) as exited:
            cli.main()
        return Outcome(int(exited.value.code or 0), *capsys.readouterr())

    return dstbench


@pytest.fixture(autouse=True)
def results(tmp_path: Path, make_record: MakeRecord) -> None:
    """``mine`` and ``yours``, with three seeds each, of which two are in both."""
    for name, seeds, more in (("mine", (0, 1, 2), 0), ("yours", (1, 2, 3), 0.5)):
        for seed in seeds:
            for record in (
                make_record(seed=seed, fid=10 + seed),
                make_record("static", 0.5, seed, fid=12 + seed**2 + (more if seed == 3 else 0)),
            ):
                folder = Store(tmp_path / "results" / name).cell(record.cell)
                folder.path.mkdir(parents=True)
                folder.write_record(record)


def test_merge(dstbench: Dstbench, make_record: MakeRecord) -> None:
    both = ("merge", "results/mine", "results/yours")
    merged = dstbench(*both, "-o", "ours")
    assert (merged.code, merged.err) == (0, "written: ours\n")
    assert merged.out.startswith("# ours\n")
    assert "| dense    |   0 |           0.000 |       4 |" in merged.out
    again = dstbench(*both, "-o", "ours")
    assert (again.code, again.out) == (2, "")
    assert again.err == "error: ours: is there already, and stays as it is; name another folder\n"

    record = make_record(seed=1, fid=99)
    Store(Path("results/yours")).cell(record.cell).write_record(record)
    refused = dstbench(*both, "-o", "others")
    assert refused.code == 2
    assert refused.err == (
        "error: 1 cell has different results in these folders; nothing is merged unless --keep "
        f"says which stay, first or last\n{record.cell.id}: fid 11.0 and 99.0 in results/mine and "
        "results/yours\n"
    )
    assert dstbench(*both, "-o", "others", "--keep", "last").code == 0
    assert {r.scores.fid for r in Store(Path("others")).records() if r.scores} > {99.0}


def test_compare(dstbench: Dstbench) -> None:
    text = dstbench("compare", "results/mine", "results/yours")
    assert (text.code, text.err) == (0, "")
    assert text.out.startswith("# mine and yours\n\n- mine: 6 done\n- yours: 6 done\n")
    assert "| the same" in text.out
    told = dstbench("compare", "results/mine", "results/yours", "--json", "--margin", "0.2")
    scores = json.loads(told.out)["scores"]
    assert [(line["method"], line["seeds"]) for line in scores] == [("dense", 2), ("static", 2)]
    assert scores[0]["margin"] == pytest.approx(0.2 * 11.5)


def test_report_compares_with_another_method(dstbench: Dstbench) -> None:
    assert dstbench("report", "results/mine", "--against", "static", "--margin", "0.2").code == 0
    assert "static at the same S" in Path("report.html").read_text()
    wrong = dstbench("report", "results/mine", "--against", "rigl")
    assert wrong.code == 2
    assert "results/mine: nothing can be compared with 'rigl'" in wrong.err


def test_publish(dstbench: Dstbench) -> None:
    done = dstbench("publish", "results/mine", "--to", "site")
    assert (done.code, done.out, done.err) == (0, "", "written: site/index.html\n")
    assert 'href="mine/report.html"' in Path("site/index.html").read_text()
    assert dstbench("publish", "results/mine", "--to", "results").code == 2


def test_ctrl_c_ends_a_dashboard_quietly(tmp_path: Path) -> None:
    # A shell has processes in the background ignore Ctrl-C; this is not.
    python = (
        "import signal; signal.signal(2, signal.default_int_handler)\n"
        "from dstbench.cli import main; main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", python, "dashboard", "--port", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr
            line = process.stderr.readline()
            found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/ shows results; Ctrl-C .*\n", line)
            assert found, line
            connection = HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
            connection.request("GET", "/")
            assert "2 benchmarks" in connection.getresponse().read().decode()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (130, "", "")
