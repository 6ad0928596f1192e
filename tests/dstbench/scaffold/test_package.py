"""``dstbench new``: what it writes is a package that works as it stands."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from csv import DictReader
from pathlib import Path
from typing import get_args

import pytest

from dstbench.errors import PluginError, StoreError
from dstbench.grid.expansion import cells
from dstbench.grid.reader import load_benchmark
from dstbench.planning.planner import plan
from dstbench.plugins.plugin import Plugin
from dstbench.plugins.registry import Plugins, load_plugins
from dstbench.scaffold.package import Template, next_commands, write_package

ROOT = Path(__file__).parents[3]
TEMPLATES: tuple[Template, ...] = get_args(Template)
DSTBENCH = ("-c", "from dstbench.cli import main; main()")


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return load_plugins()


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory, plugins: Plugins) -> Path:
    """A folder with a package of each kind, called new-sparsifier_2 and so on."""
    folder = tmp_path_factory.mktemp("packages")
    for template in TEMPLATES:
        name = f"new-{template}_2"
        write_package(template, name, folder / name, plugins)
    return folder


@pytest.fixture
def theirs(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plugins]:
    """What is plugged in with the packages installed."""
    monkeypatch.syspath_prepend(installed)
    yield load_plugins()
    for name in [name for name in sys.modules if name.startswith("dstbench_new_")]:
        del sys.modules[name]  # whose name is free where the packages are made once more


@pytest.fixture(scope="module")
def installed(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all of the packages are installed in."""
    target = tmp_path_factory.mktemp("site-packages")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--target", str(target))
    python("-m", "pip", "install", *options, *map(str, packages.iterdir()))
    return target


def python(*arguments: str, path: Path | None = None, cwd: Path | None = None) -> str:
    """Run Python, which sees what is installed in the folder ``path``, and return its output."""
    seen = [str(path)] if path else []
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([*seen, os.environ.get("PYTHONPATH", "")]),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "OMP_NUM_THREADS": "1",
    }
    finished = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def files(folder: Path) -> dict[str, str]:
    """Their texts, by path; tools' caches are left out."""
    paths = (path for path in folder.rglob("*") if path.suffix in {".py", ".toml", ".md"})
    return {str(path.relative_to(folder)): path.read_text() for path in paths}


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_package_is_a_module_with_its_test_a_benchmark_and_a_readme(
    template: Template, tmp_path: Path, plugins: Plugins
) -> None:
    write_package(template, "big-idea", tmp_path / "here", plugins)
    written = files(tmp_path / "here")
    assert written.keys() == {
        "pyproject.toml",
        "README.md",
        "benchmark.toml",
        "dstbench_big_idea.py",
        "tests/test_big_idea.py",
    }
    assert "class BigIdea(" in written["dstbench_big_idea.py"]
    for text in written.values():
        assert not any(
            word in text.lower() for word in ("my-", "my_", f"my{template}".replace("-", ""))
        )
    project = tomllib.loads(written["pyproject.toml"])["project"]
    assert project["name"] == "dstbench-big-idea"
    assert project["dependencies"] == ["dstbench"]
    assert project["entry-points"] == {"dstbench": {"big-idea": "dstbench_big_idea"}}


def test_a_package_may_have_its_template_s_name(tmp_path: Path, plugins: Plugins) -> None:
    write_package("model", "my-model", tmp_path / "new", plugins)
    for path, text in files(ROOT / "dstbench" / "scaffold" / "templates" / "model").items():
        assert (tmp_path / "new" / path).read_text() == text


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("My-Idea", "'My-Idea' is not a name: use lower-case letters"),
        ("../idea", "'../idea' is not a name"),
        ("", "'' is not a name"),
        ("2-4", "'2-4' cannot name a package: begin with a letter, end with a letter or digit"),
        ("idea-", "'idea-' cannot name a package"),
        ("i.dea", "'i.dea' cannot name a package: .+ and use '-' rather than '.'"),
        ("none", "'none' would make a class called None, a word that its module uses"),
        ("layer", "'layer' would make a class called Layer"),
        ("check", "'check' would make a class called Check"),
        ("dense", "'dense' is the name of the reference; choose another"),
        ("rigl", "there is a sparsifier 'rigl' already, of dstbench .+; choose another name"),
        ("ldm", "a module 'dstbench_ldm' is installed already; choose another name"),
        ("away", "there is a sparsifier 'away' already, of elsewhere 3.1; choose another name"),
    ],
)
def test_a_name_that_cannot_be_one_or_is_taken(name: str, problem: str, tmp_path: Path) -> None:
    plugins = load_plugins()
    plugins.listing.append(Plugin("away", None, "elsewhere", "3.1", "switched off"))
    with pytest.raises(PluginError, match=f"^{problem}"):
        write_package("sparsifier", name, tmp_path / "new", plugins)
    assert not any(tmp_path.iterdir())


def test_a_name_of_another_kind_is_free(tmp_path: Path, plugins: Plugins) -> None:
    write_package("sparsifier", "digits", tmp_path / "new", plugins)  # a dataset's


def test_what_is_there_stays_as_it_is(tmp_path: Path, plugins: Plugins) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "README.md").write_text("mine")
    (tmp_path / "file.md").write_text("mine")
    for there in (tmp_path / "there", tmp_path / "file.md"):
        with pytest.raises(StoreError, match="is there already, and stays as it is"):
            write_package("model", "idea", there, plugins)
    with pytest.raises(StoreError, match="cannot be written: Not a directory"):
        write_package("model", "idea", tmp_path / "file.md" / "below", plugins)
    assert files(tmp_path) == {"there/README.md": "mine", "file.md": "mine"}


def test_the_next_commands_can_be_typed() -> None:
    assert next_commands("my-idea", Path("my ideas")) == [
        "python -m pip install --editable 'my ideas[test]'",
        "dstbench check my-idea",
        "dstbench run 'my ideas/benchmark.toml'",
    ]


def test_the_command(tmp_path: Path) -> None:
    out = python(*DSTBENCH, "new", "feature-extractor", "my-idea", cwd=tmp_path)
    assert out.startswith("written: my-idea\n")
    for command in next_commands("my-idea", Path("my-idea")):
        assert f"\n    {command}\n" in out
    python(*DSTBENCH, "new", "feature-extractor", "my-idea", "--to", "deep/down", cwd=tmp_path)
    assert files(tmp_path / "deep" / "down") == files(tmp_path / "my-idea")


def test_nothing_that_is_slow_to_import_is_needed() -> None:
    python("-c", "import sys, dstbench.scaffold; assert 'torch' not in sys.modules")


def test_packages_are_formatted_and_typed(packages: Path) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    rules = [f"--{key}={','.join(settings[key])}" for key in ("select", "ignore")]
    for folder in packages.iterdir():  # each by itself, as its author has it
        python("-m", "ruff", "check", "--no-cache", *rules, ".", cwd=folder)
        python("-m", "ruff", "format", "--no-cache", "--check", ".", cwd=folder)
    python("-m", "mypy", *map(str, packages.rglob("*.py")), cwd=ROOT)


def test_packages_are_listed(theirs: Plugins) -> None:
    found = {p.name: (p.kind, p.distribution, p.state) for p in theirs.listing if "_2" in p.name}
    assert found == {
        "new-sparsifier_2": ("sparsifier", "dstbench-new-sparsifier_2", "ok"),
        "new-model_2": ("model", "dstbench-new-model_2", "ok"),
        "new-dataset_2": ("dataset", "dstbench-new-dataset_2", "ok"),
        "new-feature-extractor_2": ("feature extractor", "dstbench-new-feature-extractor_2", "ok"),
        "new-metric_2": ("metric", "dstbench-new-metric_2", "ok"),
        "new-executor_2": ("executor", "dstbench-new-executor_2", "ok"),
        "new-tracker_2": ("tracker", "dstbench-new-tracker_2", "ok"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_package_passes_its_own_test(template: Template, packages: Path, installed: Path) -> None:
    folder = packages / f"new-{template}_2"
    out = python("-m", "pytest", "-p", "no:cacheprovider", ".", path=installed, cwd=folder)
    assert "passed" in out


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_package_s_benchmark_is_planned(
    template: Template, packages: Path, theirs: Plugins
) -> None:
    name = f"new-{template}_2"
    benchmark = load_benchmark(packages / name / "benchmark.toml", theirs)
    planned = plan(cells(benchmark), theirs)
    assert all(each.counts for each in planned)
    named = [*benchmark.executors, *benchmark.trackers]
    assert name in named or any(name in each.cell.model_dump_json() for each in planned)


def test_all_of_them_make_a_benchmark(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "toys.toml").write_text("""
name = "toys"
[grid]
seeds = [0]
sparsities = [0.5]
sparsifiers = ["dense", "rigl"]
[[tasks]]
model = "new-model_2"
dataset = "new-dataset_2"
[models.new-model_2]
width = 8
sampling_steps = 2
[datasets.new-dataset_2]
train = 32
[sparsifiers.new-sparsifier_2]
exploration_frequency = 3
[training]
steps = 12
batch_size = 8
[evaluation]
extractor = "new-feature-extractor_2"
metrics = ["fid", "new-metric_2"]
samples = 9
kid_subsets = 2
[execution]
executor = "new-executor_2"
[tracking]
trackers = ["new-tracker_2"]
""")
    only = "sparsifier=dense,static,new-sparsifier_2"
    python(*DSTBENCH, "run", "toys.toml", "--only", only, path=installed, cwd=tmp_path)
    results = tmp_path / "results" / "toys"
    with (results / "leaderboard.csv").open() as table:
        methods = [row["method"] for row in DictReader(table)]
    assert methods == ["dense", "new-sparsifier_2", "static"]  # added ones by name
    (record,) = results.glob("cells/*new-sparsifier*/record.json")
    assert json.loads(record.read_text())["topology_updates"] == 2
    assert json.loads(record.read_text())["scores"]["others"]["new_metric_2"] > 0
    told = (record.parent / "new-tracker_2.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in told] == [
        "started", "layers changed", "layers changed", "layers changed", "progressed", "done",
    ]  # fmt: skip
