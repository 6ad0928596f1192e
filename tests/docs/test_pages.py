"""The pages: links lead somewhere, code is right, and what is made from the code is as it says."""

import re
import shlex
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import typer

from dstbench.cli.app import app
from dstbench.cli.reference import renew
from dstbench.grid.expansion import cells
from dstbench.grid.reader import load_benchmark
from dstbench.grid.reference import TOPICS
from dstbench.plugins.registry import load_plugins

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*DOCS, *sorted(ROOT.glob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
PAGES += sorted((ROOT / "results").glob("*.md"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

OWN_TESTS = {"executors.md", "plugins.md", "python.md"}
"""Pages whose code other tests run."""
HOW_TOS = {"get-started.md", *(path.name for path in DOCS if path.parent.name == "how-to")}
"""Pages that test_how_tos.py follows."""
WITH_CODE = [ROOT / "README.md", *(path for path in DOCS if path.name not in OWN_TESTS)]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, language: str) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


# Links


def without_code(text: str) -> str:
    fenced = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "code", fenced)


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as forges make them."""
    text = re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(path.read_text(encoding="utf-8"))):
        if re.match(r"https?://", link):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), f"{name(path)} links to {link}, which is not there"
        if anchor:
            assert anchor in anchors(target), f"{name(path)} links to {link}: no such heading"


def test_the_index_has_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    paths = [path.relative_to(ROOT / "docs").as_posix() for path in DOCS]
    missing = [path for path in paths if f"]({path})" not in index]
    assert missing == ["README.md"]


# What is made from the code


@pytest.mark.parametrize("path", DOCS, ids=name)
def test_what_is_made_from_the_code_is_as_the_code_says(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    assert renew(page) == page, "run: python -m dstbench.cli.reference docs"


def test_every_table_of_a_benchmark_file_is_documented() -> None:
    page = (ROOT / "docs" / "benchmark-files.md").read_text(encoding="utf-8")
    parts = re.findall(r"<!-- made: (.+) -->", page)
    assert sorted(parts) == sorted([*TOPICS, "plugins feature extractor"])


# Code

BASE = """
name = "mine"
[[tasks]]
model = "ldm"
dataset = "digits"
[grid]
seeds = [0]
sparsities = [0.5]
sparsifiers = ["dense", "rigl"]
"""


def toml_blocks() -> Iterator[tuple[str, str]]:
    for path in WITH_CODE:
        for block in blocks(path, "toml"):
            yield name(path), block


@pytest.mark.parametrize(("page", "block"), list(toml_blocks()))
def test_benchmarks_are_valid(page: str, block: str, tmp_path: Path) -> None:
    """Alone, or as a part of a small one."""
    file = tmp_path / "mine.toml"
    base = BASE.partition("[grid]")[0] if "[grid]" in block else BASE
    file.write_text(block if re.search("^name = ", block, re.MULTILINE) else base + block)
    plugins = load_plugins()
    for preset in (None, *tomllib.loads(block).get("presets", {})):
        assert cells(load_benchmark(file, plugins, preset))


def test_the_cells_of_the_first_benchmark_are_as_many_as_the_page_says(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(blocks(ROOT / "docs" / "benchmark-files.md", "toml")[0])
    assert len(cells(load_benchmark(file, load_plugins()))) == 21


def typed() -> Iterator[tuple[str, str]]:
    for path in (*WITH_CODE, ROOT / "CONTRIBUTING.md"):
        in_tables = re.findall(r"^\| `(dstbench .+?)` \|", path.read_text("utf-8"), re.MULTILINE)
        in_blocks = "".join(blocks(path, "sh")).splitlines()
        in_cells = re.findall(r"`(pip install .+?)`", path.read_text("utf-8"))
        for line in (*in_tables, *in_blocks, *in_cells):
            yield name(path), line


@pytest.mark.parametrize(("page", "line"), list(typed()))
def test_commands_can_be_typed(page: str, line: str) -> None:
    """Not carried out: parsed."""
    match shlex.split(line, comments=True):
        case ["dstbench", command, *arguments]:
            program = typer.main.get_command(app)
            assert isinstance(program, typer.core.TyperGroup)
            program.commands[command].make_context(command, arguments)
        case ["make", target]:
            assert re.search(f"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        case ["pip", "install", "."]:
            pass  # which make does
        case ["pip", "install", requirement]:
            distribution, _, extra = requirement.removesuffix("]").partition("[")
            assert distribution == PROJECT["name"]
            assert not extra or extra in PROJECT["optional-dependencies"]
        case ["python", "-m", "dstbench.cli.reference", folder]:
            assert (ROOT / folder).is_dir()
        case ["python", "benchmarks/recompute.py", *_]:
            pass  # which a test of the report runs
        case _:
            raise AssertionError(f"no test knows how to type {line!r}")


def test_the_engine_alone() -> None:
    attaching, packing = blocks(ROOT / "docs" / "engine.md", "python")
    model = torch.nn.Linear(16, 32)
    names = {"model": model, "optimizer": torch.optim.AdamW(model.parameters()), "torch": torch}
    exec(attaching, names)
    exec(packing, names | {"batches": torch.randn(3, 8, 16)})
    assert int(model.weight.count_nonzero()) == round(0.1 * 16 * 32)


def test_every_block_is_run() -> None:
    for path in WITH_CODE:
        languages = re.findall(r"^```(\w+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(languages) <= {"toml", "sh", "python"}, name(path)
        if "python" in languages:  # run by name, above and in test_readme.py
            assert path.name in {"README.md", "engine.md", *HOW_TOS}
            assert languages.count("python") == 1 or path.name in {"engine.md", *HOW_TOS}


def test_plugins_that_come_with_it_are_all_named() -> None:
    page = (ROOT / "docs" / "what-comes-with-it.md").read_text(encoding="utf-8")
    overview = page.partition("## Benchmarks")[0]
    shipped = [p.name for p in load_plugins().listing if p.distribution == PROJECT["name"]]
    assert [name for name in shipped if f"`{name}`" not in overview] == []
    benchmarks = {path.name for path in (ROOT / "benchmarks").glob("*.toml")}
    assert set(re.findall(r"^\| `(\w+\.toml)` \|", page, re.MULTILINE)) == benchmarks


# The project


def test_the_way_of_a_cell_leads_through_modules_that_are_there() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    way = re.findall(r"^\| `(dstbench/\w+/\w+\.py)` \|", page, re.MULTILINE)
    assert 0 < len(way) <= 8
    for module in (*way, "dstbench/api.py"):
        assert (ROOT / module).is_file(), module


def test_every_room_is_told_of() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    told = set(re.findall(r"`(\w+(?:/|\.py))`", page.partition("| room |")[2]))
    rooms = {
        path.name + "/" * path.is_dir()
        for path in (ROOT / "dstbench").iterdir()
        if (path.suffix == ".py" or path.is_dir()) and not path.name.startswith("__")
    }
    assert rooms <= told


def test_the_citation_is_of_this_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert f"version: {PROJECT['version']}" in citation
    assert f"license: {PROJECT['license']}" in citation


def test_every_supported_python_is_tested() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    said = {each.rpartition(" ")[2] for each in PROJECT["classifiers"] if "Python :: 3." in each}
    assert set(re.findall(r'"(3\.\d+)"', workflow)) == said
