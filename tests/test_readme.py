"""The README's examples do what it says."""

import re
from pathlib import Path

import pytest
import torch

from dstbench.grid.expansion import cells
from dstbench.grid.reader import load_benchmark
from dstbench.plugins.registry import load_plugins

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def example(language, containing):
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    (block,) = [block for block in blocks if containing in block]
    return block


def test_benchmark(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(example("toml", "[[tasks]]"), encoding="utf-8")
    grid = cells(load_benchmark(path, load_plugins()))
    # per seed: dense, static at two sparsities, RigL at two sparsities × two prune rates
    assert len(grid) == 3 * (1 + 2 + 4)
    assert {cell.training["steps"] for cell in grid} == {20_000}


def test_engine_alone():
    model = torch.nn.Linear(16, 32)
    namespace = {"model": model, "optimizer": torch.optim.AdamW(model.parameters())}
    exec(example("python", "RigL(0.9"), namespace)
    assert int(model.weight.count_nonzero()) == round(0.1 * 16 * 32)


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.toml")), ids=lambda p: p.name)
def test_our_benchmarks_are_valid(path):
    assert cells(load_benchmark(path, load_plugins()))
