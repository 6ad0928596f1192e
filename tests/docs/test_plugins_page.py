"""docs/plugins.md: its code is run, and it documents all that is public, and nothing else."""

import importlib
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from ast import ImportFrom, parse, walk
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import warm

from dstbench.plugins import hookspecs
from dstbench.plugins.registry import Plugins, load_plugins

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")

PUBLIC = {
    module: importlib.import_module(module).__all__
    for module in (
        "dstbench",
        "dstbench.cache",
        "dstbench.contracts",
        "dstbench.download",
        "dstbench.errors",
        "dstbench.execution",
        "dstbench.files",
        "dstbench.grid",
        "dstbench.journal",
        "dstbench.kernels",
        "dstbench.parallel",
        "dstbench.plugins",
        "dstbench.records",
        "dstbench.sparsity",
        "dstbench.store",
        "dstbench.testing",
    )
}
"""By module, what plugins may import."""

HOOKS = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("dstbench_")}


def sections(text: str, level: str = "##") -> dict[str, str]:
    """By heading of this level."""
    parts = re.split(rf"^{level} (.+)$", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


class Block(NamedTuple):
    language: str
    text: str


def blocks(section: str, language: str = r"\w+") -> list[Block]:
    """Those of a section that name their language, in order."""
    found = re.findall(rf"^```({language})\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    return [Block(*each) for each in found]


SECTIONS = sections(PAGE)
TUTORIAL = "From an idea to a leaderboard row"


# The code


def python(*arguments: str, cwd: Path, path: Path, **variables: str) -> str:
    """Run Python, which sees what is installed in the folder ``path``, and return its output."""
    env = environment(path) | variables
    command = [sys.executable, *arguments]
    return output(subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True))


def dstbench(*arguments: str, cwd: Path, path: Path, **variables: str) -> str:
    return output(warm.run(*arguments, cwd=cwd, env=environment(path) | variables))


def environment(path: Path) -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(path), os.environ.get("PYTHONPATH", "")]),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "OMP_NUM_THREADS": "1",
    }


def output(finished: "subprocess.CompletedProcess[str]") -> str:
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the Python of each section is a module, which a distribution plugs in."""
    folder = tmp_path_factory.mktemp("site-packages")
    plugged_in = []
    for title, section in SECTIONS.items():
        code = "\n\n".join(block.text for block in blocks(section, "python"))
        if "@hookimpl" in code and title != TUTORIAL:
            module = f"page_{title.lower().replace(' ', '_')}"
            (folder / f"{module}.py").write_text(code, encoding="utf-8")
            plugged_in.append(f"{module} = {module}\n")
    info = folder / "page-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: page\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[dstbench]\n{''.join(plugged_in)}")
    return folder


@pytest.fixture
def plugins(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Plugins:
    monkeypatch.syspath_prepend(installed)
    return load_plugins()


def page_plugins(plugins: Plugins) -> list[str]:
    theirs = [plugin for plugin in plugins.listing if plugin.distribution == "page"]
    for plugin in theirs:
        assert plugin.state == "ok", plugin.traceback
    return [plugin.name for plugin in theirs]


def test_the_code_of_every_kind_is_a_plugin(plugins: Plugins) -> None:
    assert sorted(page_plugins(plugins)) == [
        "averages", "by-gradient", "fresh", "gradual", "in-fours", "means", "page_listeners",
        "pixels", "sensitivity", "sparsest-first", "stripes", "table",
    ]  # fmt: skip


@pytest.mark.slow
def test_the_plugins_of_the_page_keep_their_promises(
    plugins: Plugins, installed: Path, tmp_path: Path
) -> None:
    classes = [name for name in page_plugins(plugins) if name != "page_listeners"]
    dstbench("check", *classes, cwd=tmp_path, path=installed)


def test_the_benchmark_of_ones_own_plugins_runs(installed: Path, tmp_path: Path) -> None:
    (block,) = blocks(SECTIONS["A benchmark of one's own plugins"])
    (tmp_path / "stripes.toml").write_text(block.text)
    cells = json.loads(
        dstbench("plan", "stripes.toml", "--format", "json", cwd=tmp_path, path=installed)
    )
    assert all(cell["training_flops"] for cell in cells)
    dstbench("run", "stripes.toml", cwd=tmp_path, path=installed)
    log = [json.loads(line) for line in (tmp_path / "finished.jsonl").read_text().splitlines()]
    assert len(log) == len(cells) == 2 * (1 + 2 * (2 + 1 + 1 + 1))
    assert all(entry["status"] == "done" for entry in log)
    moving = [entry for entry in log if "by-gradient" in entry["cell"] or "fresh" in entry["cell"]]
    assert [entry for entry in log if entry["moved"]] == moving
    assert "sensitivity" in log[0]["cell"] or "0.75" in log[0]["cell"]  # the sparsest first


def test_the_entry_point_is_that_of_a_new_package(tmp_path: Path) -> None:
    (block,) = blocks(SECTIONS["Names, pins and versions"], "toml")
    dstbench("new", "sparsifier", "my-idea", cwd=tmp_path, path=tmp_path)
    assert block.text in (tmp_path / "my-idea" / "pyproject.toml").read_text()


@pytest.mark.slow
def test_the_commands_can_be_typed_in_their_order(tmp_path: Path) -> None:
    """But for those that train for minutes, which are read and not carried out."""
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    installed = tmp_path / "site-packages"
    for section in SECTIONS.values():
        for block in blocks(section):
            if file := re.match(r"# (my-idea/\S+)\n", block.text):
                assert (tmp_path / file[1]).exists()
                (tmp_path / file[1]).write_text(block.text)
            elif block.language == "sh":
                for line in block.text.splitlines():
                    type_in(line, tmp_path, installed)
    module = "dstbench_my_idea.py"
    assert (installed / module).read_text() == (tmp_path / "my-idea" / module).read_text()


def type_in(line: str, cwd: Path, installed: Path) -> None:
    words = shlex.split(line)
    variables = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    match words[len(variables) :]:
        case ["python", "-m", "pip", "install", "--editable", package]:
            folder = cwd / package.removesuffix("[test]")
            offline = ("--quiet", "--no-deps", "--no-build-isolation", "--target", str(installed))
            python("-m", "pip", "install", *offline, str(folder), cwd=cwd, path=installed)
            for module in folder.glob("*.py"):  # editable
                (installed / module.name).unlink()
                (installed / module.name).symlink_to(module)
        case ["dstbench", "run", *arguments]:
            out = dstbench("run", *arguments, "--dry-run", cwd=cwd, path=installed)
            assert "my-idea" in out
        case ["dstbench", *arguments]:
            dstbench(*arguments, cwd=cwd, path=installed, **variables)
        case _:
            raise AssertionError(f"no test knows how to type {line!r}")


def test_the_test_of_ones_own_passes(tmp_path: Path) -> None:
    (block,) = blocks(SECTIONS["Checks"], "python")
    (tmp_path / "test_mine.py").write_text(block.text)
    # The quick ones of many.
    python("-m", "pytest", "-q", "-k", "settings", ".", cwd=tmp_path, path=tmp_path)


def test_every_block_is_run() -> None:
    run = {"python", "toml", "sh"}
    assert {block.language for block in blocks(PAGE)} == run
    with_toml = [title for title, section in SECTIONS.items() if blocks(section, "toml")]
    assert with_toml == ["A benchmark of one's own plugins", "Names, pins and versions"]


# The reference


def documented() -> Iterator[tuple[str, str, str]]:
    """Module (of hooks, too), name and parameters of all that the reference's tables list."""
    for title, section in sections(SECTIONS["Reference"], "###").items():
        module = "dstbench.plugins.hookspecs" if title == "Hooks" else title.strip("`")
        for names in re.findall(r"^\| (`.*?) \| ", section, re.MULTILINE):
            for name, _, parameters in re.findall(r"`([\w.]+)(\((.*?)\))?`", names):
                yield module, name, parameters


DOCUMENTED = list(documented())


def test_what_is_documented_is_there() -> None:
    assert len(DOCUMENTED) > len(HOOKS) + sum(map(len, PUBLIC.values()))
    for module, name, parameters in DOCUMENTED:
        thing: Any = importlib.import_module(module)
        for part in name.split("."):
            assert part in members(thing) or hasattr(thing, part), f"{name} is not in {module}"
            thing = getattr(thing, part, None)
        if parameters and thing is not None:
            real = [each for each in inspect.signature(thing).parameters if each != "self"]
            given = [each.rstrip("=") for each in parameters.split(", ") if each != "…"]
            assert given == real[: len(given)], f"{name} takes {real}"


def members(thing: object) -> set[str]:
    """The public attributes that a class brings, those of its instances too."""
    if not inspect.isclass(thing):
        return set()
    names: set[str] = set()
    for cls in thing.__mro__:
        if cls.__module__.startswith("dstbench."):
            own = re.findall(r"^ +self\.(\w+)(?:: .+)? = ", inspect.getsource(cls), re.MULTILINE)
            names |= {*own, *vars(cls), *vars(cls).get("__annotations__", {})}
    return {name for name in names if not name.startswith("_")} - {"model_config"}  # pydantic's


def test_every_hook_is_documented() -> None:
    hooks = {name: list(inspect.signature(hook).parameters) for name, hook in HOOKS.items()}
    listed = {
        name: parameters.split(", ") if parameters else []
        for module, name, parameters in DOCUMENTED
        if module == "dstbench.plugins.hookspecs"
    }
    assert listed == hooks


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_documented(module: str) -> None:
    names = {name for where, name, _ in DOCUMENTED if where == module}
    missing = sorted(set(PUBLIC[module]) - names)
    assert not missing, f"docs/plugins.md does not document {', '.join(missing)} of {module}"
    unknown = sorted({name.partition(".")[0] for name in names} - set(PUBLIC[module]))
    assert not unknown, f"docs/plugins.md documents {', '.join(unknown)}, not public in {module}"


@pytest.mark.parametrize("module", ["contracts", "sparsity", "testing"])
def test_every_public_member_is_documented(module: str) -> None:
    listed = {name for _, name, _ in DOCUMENTED}
    missing = [
        f"{name}.{member}"
        for name in PUBLIC[f"dstbench.{module}"]
        if inspect.isclass(cls := getattr(importlib.import_module(f"dstbench.{module}"), name))
        for member in sorted(members(cls))
        if not any(f"{base.__name__}.{member}" in listed for base in cls.__mro__)
    ]
    assert not missing, f"docs/plugins.md does not document {', '.join(missing)}"


@pytest.mark.parametrize("folder", ["plugins", "examples", "dstbench/scaffold/templates"])
def test_plugins_use_nothing_that_is_not_public(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        for node in walk(parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ImportFrom) and (node.module or "").partition(".")[0] == "dstbench":
                used = {alias.name for alias in node.names}
                assert used <= set(PUBLIC.get(node.module or "", ())), f"{path}: {used}"
