"""What works where no extra is installed, and what a run says that would need one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

QUICKSTART = Path(__file__).parents[3] / "benchmarks" / "quickstart.toml"
OPTIONAL = [
    "efficientnet_lite_pytorch", "lmdb", "mlflow", "prdc", "ray", "submitit", "svgpathtools",
    "tensorboard", "timm", "wandb",
]  # fmt: skip

WITHOUT = f"""
import sys
sys.modules.update(dict.fromkeys({OPTIONAL}))
from dstbench.cli import main
main()
"""


def dstbench(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Runs the command line in a process that can import no optional package."""
    command = [sys.executable, "-c", WITHOUT, *arguments]
    environment = os.environ | {"DSTBENCH_CACHE": str(cwd / "cache")}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["plugins"], "kanjivg  "),
        (["run", str(QUICKSTART), "--dry-run"], "chirodiff-digits-strokes-rigl-0.9-0-"),
        (["plan", str(QUICKSTART)], "## chirodiff on digits-strokes"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_needs_none_works(arguments: list[str], expected: str, tmp_path: Path) -> None:
    done = dstbench(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert expected in done.stdout
    assert "broken" not in done.stdout


@pytest.mark.parametrize(("executor", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_run_says_what_is_to_be_installed(executor: str, package: str, tmp_path: Path) -> None:
    cells = ("--only", "model=ldm", "--executor", executor)
    done = dstbench("run", str(QUICKSTART), *cells, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(
        f"error: executor '{executor}' needs the package {package}: "
        f"pip install 'dstbench[{executor}]'\n"
    )
    assert "Traceback" not in done.stderr
