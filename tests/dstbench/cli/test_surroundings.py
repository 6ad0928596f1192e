"""The command line in rough surroundings: streams, signals, links, hostile names."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import warm

from dstbench.cli import main
from dstbench.cli.streams import clean
from dstbench.store.files import write_folder

RUN = "from dstbench.cli import main; main()"

BENCHMARK = (Path(__file__).parents[1] / "toys.toml").read_text()

LONG = BENCHMARK.replace("= 12", "= 1_000_000").replace("every = 5", "every = 1_000_000")


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of bash; ``dstbench`` is the command line."""
    script = f"set -o pipefail; dstbench() {{ {sys.executable} -c '{RUN}' \"$@\"; }}; {command}"
    return subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
        errors="replace",
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("dstbench run toys.toml | true", 1, ""),
        ("dstbench run toys.toml > /dev/full", 1, "error: standard output cannot be written to"),
        ("dstbench run toys.toml >&-", 0, ""),
        ("LC_ALL=C PYTHONUTF8=0 PYTHONIOENCODING=ascii dstbench run toys.toml", 0, ""),
        ("dstbench run toys.toml 2>&1 | true", 1, ""),
        ("dstbench run toys.toml 2> /dev/full", 0, ""),
    ],
)
def test_files_are_written_whatever_becomes_of_the_output(
    folder: Path, command: str, code: int, said: str
) -> None:
    done = shell(command)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert "| leftmost" in (folder / "results" / "toys" / "leaderboard.md").read_text()
    if "ascii" in command:
        assert "GFLOPs (?)" in done.stdout


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def steps(folder: Path) -> list[int]:
    """The steps that the cells' processes have told of."""
    found = []
    for path in folder.glob("results/toys/cells/*/running.json"):
        found.append(json.loads(path.read_text())["step"])
    return found


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., warm.Process]]:
    """Starts a long run in a process group of its own, and waits until its cells are trained."""
    started: list[warm.Process] = []
    (folder / "toys.toml").write_text(LONG)

    def start(*arguments: str) -> warm.Process:
        process = warm.start("run", "toys.toml", *arguments)
        started.append(process)
        jobs = int(arguments[-1]) if arguments else 1
        wait_for(lambda: [step > 0 for step in steps(folder)].count(True) == jobs)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_all_processes_loses_no_step(
    folder: Path,
    start: Callable[..., warm.Process],
    number: signal.Signals,
    jobs: str,
) -> None:
    process = start("--jobs", jobs)
    reached = steps(folder)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert "Traceback" not in err
    assert err.count("which is saved") == int(jobs)
    assert err.endswith("stopped; the same command goes on from the latest checkpoint\n")
    saved = [int(line.split("after step ")[1].split()[0]) for line in err.splitlines()
             if "after step " in line]  # fmt: skip
    assert len(list(folder.glob("results/toys/cells/*/checkpoint.pt"))) == int(jobs)
    assert min(saved) >= min(reached)
    wait_for(lambda: not is_alive(process.pid))


def is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_terminals_are_not_told_what_to_do() -> None:
    assert (
        clean("a\x1b[31m\x07\r\n\tb\x9b\u202e×é中") == "a\\x1b[31m\\x07\\x0d\n\tb\\x9b\\u202e×é中"
    )


@pytest.mark.parametrize("results", ["runs[/b]", "runs[b]", "runs[bold red]"])
def test_names_are_no_markup(folder: Path, results: str) -> None:
    done = shell(f"dstbench run toys.toml --results '{results}'")
    assert done.returncode == 0, done.stderr
    assert f"written: {results}/toys/leaderboard.md\n" in done.stderr


DEAF = '''
import time
from pathlib import Path
from dstbench import hookimpl
from dstbench.sparsity import Sparsifier

class Deaf(Sparsifier):
    """Goes on whatever it is told."""
    name = "deaf"
    def attach(self, *args, **kwargs):
        Path("deaf").touch()
        while True:
            try:
                time.sleep(600)
            except KeyboardInterrupt:
                pass

@hookimpl
def dstbench_sparsifiers():
    return [Deaf]
'''


def test_a_second_signal_leaves_at_once_and_quietly(
    folder: Path, plug_in: Callable[[str, str], None]
) -> None:
    plug_in("deaf", DEAF)
    (folder / "toys.toml").write_text(BENCHMARK.replace('"dense", "leftmost"', '"deaf"'))
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, "run", "toys.toml"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for(lambda: (folder / "deaf").exists())
        process.send_signal(signal.SIGTERM)
        time.sleep(1.5)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_any_command_quietly(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    def merge(folders: list[Path], to: Path, keep: object) -> None:
        write_folder(to, lambda folder: signal.raise_signal(number))

    monkeypatch.setattr("dstbench.api.merge", merge)
    monkeypatch.setattr(sys, "argv", ["dstbench", "merge", str(tmp_path), "-o", f"{tmp_path}/to"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 128 + number
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "dstbench.cli.app", Slow("slow"))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
