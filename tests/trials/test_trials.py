"""The trials in short; ``run.py`` beside this file is all of them."""

import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")


@pytest.mark.slow
def test_trials_in_short() -> None:
    command = [sys.executable, "-W", "ignore", str(RUN), "--short"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
