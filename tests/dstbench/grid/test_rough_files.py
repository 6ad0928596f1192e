"""Benchmark files as they may come: each is read, or refused in a line before anything starts."""

import tomllib
from pathlib import Path

import pytest

from dstbench.errors import ConfigError
from dstbench.grid.benchmark import Benchmark
from dstbench.grid.reader import load_benchmark
from dstbench.plugins.registry import Plugins

TEXT = (Path(__file__).parents[1] / "toys.toml").read_text()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "toys.toml"


def read(path: Path, plugins: Plugins) -> Benchmark:
    return load_benchmark(path, plugins)


def test_the_mark_that_some_editors_set_is_no_error(path: Path, plugins: Plugins) -> None:
    path.write_text(TEXT, encoding="utf-8-sig")
    assert read(path, plugins).name == "toys"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps = 12", "steps = " + "1" * 5000, r"this is not valid TOML: Exceeds the limit"),
        ("steps = 12", "steps = 10" + "0" * 40, r"training\.steps: should be less than or equal"),
        ("steps = 12", "steps = 12\nx = " + "[" * 600 + "]" * 600, r"not valid TOML|unknown key"),
        ("steps = 12", "steps = 12\nx = " + "[" * 50_000, "not valid TOML: .*nested too deeply"),
        ("steps = 12", "steps = 12\nbetas = [1.5, 2.0]", r"training\.betas\[0\]: should be less"),
        ("steps = 12", "steps = 12\nbetas = [0.9, 1.0]", r"training\.betas\[1\]: should be less"),
        ("samples = 9", "samples = 1_000_000_000_000_000", r"evaluation\.samples: should be less"),
        ("subsets = 2", "subsets = 1_000_000_000", r"kid_subsets: should be less"),
        ("samples = 9", "samples = 9\nsampling_seeds = 1_000_000_000", "should be less than"),
        ("samples = 9", "samples = 9\nresamples = 1_000_000_000", "resamples: should be less than"),
        ("[training]", "[execution]\nminutes_per_cell = 1e300\n[training]", "should be less than"),
        ("seeds = [0]", "seeds = [9_223_372_036_854_775_808]", r"grid\.seeds\[0\]: should be less"),
        ('name = "toys"', f'name = "{"x" * 300}"', r"'xxxxxxxxxxxxxxxxxxxx'… has 300 characters"),
    ],
)
def test_what_is_out_of_bounds(
    path: Path, plugins: Plugins, old: str, new: str, message: str
) -> None:
    path.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message):
        read(path, plugins)


def test_all_errors_at_once(path: Path, plugins: Plugins) -> None:
    text = TEXT.replace("steps = 12", "steps = 0").replace("samples = 9", "samples = 1")
    text = text.replace("seeds = [0]", "seeds = [-1]")
    path.write_text(f"{text}[execution]\nmeasure_seconds = -1\n[report]\nmargin = -1\n")
    with pytest.raises(ConfigError) as caught:
        read(path, plugins)
    told = str(caught.value).splitlines()
    keys = ("grid.seeds[0]", "training.steps", "evaluation.samples", "execution.measure_seconds",
            "report.margin")  # fmt: skip
    assert [key for key in keys if any(f": {key}: " in line for line in told)] == list(keys)
    assert len(told) == 5


def test_the_text_of_these_tests_is_right(path: Path, plugins: Plugins) -> None:
    path.write_text(TEXT)
    assert tomllib.loads(TEXT)["name"] == read(path, plugins).name
