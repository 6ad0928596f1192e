"""Get started and the how-tos: what is on them works, in the order of the page."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dstbench import cli

DOCS = Path(__file__).parents[2] / "docs"
SMALLER = {
    "sparsities = [0.5, 0.9]": "sparsities = [0.9]",
    "sampling_steps = 20": "sampling_steps = 5",
    "steps = 200": "steps = 10",
    "samples = 256": "samples = 64",
    "measure_seconds = 1": "measure_seconds = 0.2",
    "steps = 400": "steps = 12",
}
"""What the numbers of a page are here, that the tests stay short."""
NOT_HERE = (["pip", "install"], ["dstbench", "machine"], ["dstbench", "score"])
"""Beginnings of commands that other tests run."""


@pytest.fixture
def _here(tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DSTBENCH_CACHE", str(shared_cache))


def follow(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Save the files of a page, type its commands, then run its Python as one script."""
    page = (DOCS / name).read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    for language, text in blocks:
        if language == "toml" and (file := re.match(r"# (\w+\.toml)(, at its end)?\n", text)):
            for number, smaller in SMALLER.items():
                text = text.replace(number, smaller)
            with Path(file[1]).open("a" if file[2] else "w", encoding="utf-8") as written:
                written.write(text)
        elif language == "sh":
            for line in text.splitlines():
                type_in(shlex.split(line, comments=True), monkeypatch)
    script = Path("page.py")
    script.write_text("\n".join(text for language, text in blocks if language == "python"))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def type_in(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if words[:2] in NOT_HERE:
        return
    assert words[0] == "dstbench"
    typed = [str(path) for word in words for path in (sorted(Path().glob(word)) or [word])]
    if words[1] == "run":
        typed += ["--jobs", "1"]  # processes take longer to start than these cells to run
    monkeypatch.setattr(sys, "argv", typed)
    with pytest.raises(SystemExit) as exited:
        cli.main()
    assert not exited.value.code, typed


@pytest.mark.slow
@pytest.mark.usefixtures("_here")
def test_from_nothing_to_a_model_and_a_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    follow("get-started.md", monkeypatch)
    assert Path("results/first/report.html").is_file()
    follow("how-to/choose-a-sparsity.md", monkeypatch)
    follow("how-to/load-a-model.md", monkeypatch)
    follow("how-to/compare-two-runs.md", monkeypatch)
    assert Path("results/first-longer").is_dir()


@pytest.mark.usefixtures("_here")
def test_my_own_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    follow("how-to/my-own-loop.md", monkeypatch)


@pytest.mark.slow
@pytest.mark.usefixtures("_here")
def test_write_a_sparsifier(monkeypatch: pytest.MonkeyPatch) -> None:
    follow("how-to/write-a-sparsifier.md", monkeypatch)
