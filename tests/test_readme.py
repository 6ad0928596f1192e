"""The README's examples do what it says, and its numbers are those that were measured."""

import csv
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


def test_it_is_short_and_begins_with_the_installation():
    assert len(README.splitlines()) <= 120
    assert re.search(r"```\w+\n(.*?)```", README, re.DOTALL)[1] == "pip install dstbench\n"
    assert README.count("![") == 1


def test_benchmark(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(example("toml", "[[tasks]]"), encoding="utf-8")
    grid = cells(load_benchmark(path, load_plugins()))
    # per seed: dense, static at two sparsities, RigL at two sparsities × two prune rates
    assert len(grid) == 3 * (1 + 2 + 4)
    assert {cell.training["steps"] for cell in grid} == {1000}


def test_engine_alone():
    model = torch.nn.Linear(16, 32)
    namespace = {"model": model, "optimizer": torch.optim.AdamW(model.parameters())}
    exec(example("python", "RigL(0.9"), namespace)
    assert int(model.weight.count_nonzero()) == round(0.1 * 16 * 32)


def leaderboard(name):
    with (ROOT / "results" / name / "leaderboard.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_first_table_is_that_of_kanjivg():
    rows = leaderboard("kanjivg")
    assert {row["seeds"] for row in rows} == {"5"}
    assert f"(dense: {float(rows[0]['fid_mean']):.2f})" in README
    for sparsity in ("0.1", "0.25", "0.5", "0.75", "0.9"):
        of_methods = [row for row in rows if row["sparsity"] == sparsity]
        times = [float(row["step_time_ratio"]) for row in of_methods]
        worse = [row["method"].split()[0] for row in of_methods if is_worse(row)]
        fids = " | ".join(f"{float(row['fid_mean']):.2f}" for row in of_methods)
        time = " to ".join(sorted({f"{min(times):.2f}", f"{max(times):.2f}"}))
        assert f"| {sparsity} | {fids} | {time} | {', '.join(worse) or 'not shown'} |\n" in README


def is_worse(row):
    return float(row["fid_holm_p"]) < 0.05 and float(row["fid_difference"]) > 0


def test_the_second_table_is_that_of_the_quickstart():
    rows = [row for row in leaderboard("quickstart") if row["sparsity"] in ("0.0", "0.9")]
    row_of_table = re.compile(r"^\| (ldm|chirodiff) \| (.+) \|$", re.M)
    assert [(model, *rest.split(" | ")) for model, rest in row_of_table.findall(README)] == [
        (
            row["task"].split()[0],
            row["method"],
            f"{float(row['sparsity']):g}",
            f"{float(row['fid_mean']):.2f}",
            f"{float(row['active_parameters_ratio']):.3f}",
            f"{float(row['inference_flops_ratio']):.3f}",
            f"{float(row['state_bytes_ratio']):.2f}",
            measured(row, "step_time"),
            measured(row, "sample_time"),
        )
        for row in rows
    ]
    assert {row["seeds"] for row in rows} == {"1"}


def measured(row, time):
    if not row[f"{time}_ratio"]:
        return "1"
    ratio, low, high = (float(row[f"{time}_{part}"]) for part in ("ratio", "low", "high"))
    return f"{ratio:.2f} [{low:.2f}, {high:.2f}]"


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.toml")), ids=lambda p: p.name)
def test_our_benchmarks_are_valid(path):
    assert cells(load_benchmark(path, load_plugins()))
