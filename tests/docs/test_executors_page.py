"""docs/executors.md: its benchmarks are valid, and it keeps to what there is."""

import re
from pathlib import Path

import pytest

from dstbench.grid.reader import load_benchmark
from dstbench.plugins.registry import load_plugins

PAGE = (Path(__file__).parents[2] / "docs" / "executors.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)

GRID = """
name = "mine"
[[tasks]]
model = "ldm"
dataset = "digits"
[grid]
seeds = [0]
sparsifiers = ["dense"]
"""


@pytest.mark.parametrize("block", BLOCKS)
def test_what_it_shows_is_valid(block: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(GRID + block)
    benchmark = load_benchmark(file, load_plugins())
    assert list(benchmark.executors) == [benchmark.execution.executor]


def test_each_executor_has_its_section() -> None:
    shipped = [
        plugin.name
        for plugin in load_plugins().listing
        if (plugin.kind, plugin.distribution) == ("executor", "dstbench")
    ]
    assert re.findall("^## `(.+)`$", PAGE, re.MULTILINE) == sorted(shipped)
