"""What works where no extra is installed, and what a run says that would need one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

QUICKSTART = Path(__file__).parents[3] / "benchmarks" / "quickstart.toml"
OPTIONAL = [
    "efficientnet_lite_pytorch", "lmdb", "mlflow", "prdc", "ray", "submitit", "svgpathtools",
    "tensorboard", "timm", "wandb",
]  # fmt: skip

QUICKSTART_ON = ("run", QUICKSTART, "--only", "model=ldm", "--executor")
COMMANDS = {
    "plugins": ("plugins",),
    "run": ("run", QUICKSTART, "--dry-run"),
    "plan": ("plan", QUICKSTART),
    "ray": (*QUICKSTART_ON, "ray"),
    "slurm": (*QUICKSTART_ON, "slurm"),
}

WITHOUT = f"""
import json, sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
sys.modules.update(dict.fromkeys({OPTIONAL}))
from dstbench.cli import main

done = {{}}
for name, arguments in json.loads(sys.argv[1]).items():
    sys.argv = ["dstbench", *arguments]
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        try:
            main()
        except SystemExit as end:
            done[name] = end.code or 0, out.getvalue(), err.getvalue()
print(json.dumps(done))
"""


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Of each command, all of them in one process that can import no optional package."""
    folder = tmp_path_factory.mktemp("without")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, json.dumps(COMMANDS, default=str)],
        cwd=folder,
        env=os.environ | {"DSTBENCH_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return {name: Outcome(*each) for name, each in json.loads(done.stdout).items()}


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("plugins", "kanjivg  "),
        ("run", "chirodiff-digits-strokes-rigl-0.9-0-"),
        ("plan", "## chirodiff on digits-strokes"),
    ],
)
def test_what_needs_none_works(command: str, expected: str, outcomes: dict[str, Outcome]) -> None:
    done = outcomes[command]
    assert (done.code, done.err) == (0, "")
    assert expected in done.out
    assert "broken" not in done.out


@pytest.mark.parametrize(("executor", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_run_says_what_is_to_be_installed(
    executor: str, package: str, outcomes: dict[str, Outcome]
) -> None:
    done = outcomes[executor]
    assert (done.code, done.out) == (2, "")
    assert done.err.endswith(
        f"error: executor '{executor}' needs the package {package}: "
        f"pip install 'dstbench[{executor}]'\n"
    )
    assert "Traceback" not in done.err
