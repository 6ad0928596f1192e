"""``dstbench help``, and what the pages say of commands."""

import subprocess
import sys

import pytest

from dstbench import cli
from dstbench.cli.reference import part, renew
from dstbench.grid.reference import TOPICS


def dstbench(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys\n"
        "sys.argv[0] = 'dstbench'\n"
        "from dstbench.cli import main\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60
    )


def test_the_keys_of_a_table() -> None:
    done = dstbench("help", "training")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("[training]\nHow every cell is trained")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["steps", "int,", "≥", "1,", "≤", "1e+09", "100000", "optimizer", "steps"] in rows
    for key in TOPICS["training"].keys:
        assert any(row[:1] == [key.name] for row in rows)


def test_a_table_whose_keys_a_plugin_decides() -> None:
    done = dstbench("help", "models")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("[models.NAME]\nSettings of models")
    assert "dstbench plugins ldm" in done.stdout


def test_topics_and_commands() -> None:
    done = dstbench("help")
    assert (done.returncode, done.stderr) == (0, "")
    listed = [line.split()[0] for line in done.stdout.splitlines() if line]
    assert listed[: len(TOPICS) + 1] == ["topic", *TOPICS]
    assert listed[len(TOPICS) + 1 :] == [
        "command", "run", "plan", "status", "leaderboard", "report", "dashboard", "merge",
        "compare", "publish", "sample", "score", "export", "push", "plugins", "check", "new",
        "machine", "help",
    ]  # fmt: skip


def test_a_command() -> None:
    assert dstbench("help", "status").stdout == dstbench("status", "--help").stdout


def test_an_unknown_topic(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["dstbench", "help", "trainnig"])
    with pytest.raises(SystemExit) as exited:
        cli.main()
    assert exited.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: unknown topic 'trainnig'; did you mean 'training'? (known: ")


def test_commands_in_markdown() -> None:
    text = part("commands")
    assert "## `run`\n\n```\ndstbench run FILE\n```\n" in text
    assert "| `--yes`, `-y` |  | Download datasets" in text
    assert "| `--format table\\|csv\\|json` | `table` | table: markdown" in text
    assert "```\ndstbench check NAME…\n```" in text
    assert "```\ndstbench help [TOPIC]\n```" in text
    assert "\n- 3: some were skipped" in text


def test_a_page_is_renewed_between_its_marks_alone() -> None:
    page = "# A\n\n<!-- made: execution -->\nold\n<!-- end -->\n\n<!-- made by hand -->\n"
    renewed = renew(page)
    assert renewed.startswith("# A\n\n<!-- made: execution -->\n\nThe place where cells are run")
    assert renewed.endswith("\n\n<!-- end -->\n\n<!-- made by hand -->\n")
    assert "| `executor` | `str \\| None` | `none` | executor, by its plugin's name" in renewed
    assert "old" not in renewed
    assert renew(renewed) == renewed
