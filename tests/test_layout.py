"""The rooms of the harness: imports run down only, and no module grows out of hand."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "dstbench" / "contracts.py"
"""What strangers derive from stands on one page, on purpose."""
MODULES = [
    path
    for path in sorted((ROOT / "dstbench").rglob("*.py"))
    if "templates" not in path.parts and path != PAGE
]


def test_imports_run_down_only_and_make_no_circle() -> None:
    """By the contracts in pyproject.toml; imports for types and within functions count, too."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_has_one_idea(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 310
