"""A hook of mkdocs: files beside docs/ that pages link to, a gallery, and the Python reference.

Pages under docs/ link to what is beside it, such as ``../benchmarks/kanjivg.toml``, as forges have
it. The site has all that: markdown as a page, source text and folders as pages that show them,
anything else as it is; and what those pages link to in turn.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
GALLERY = DOCS / "gallery.md"  # where it would be, were it written by hand
LANGUAGES = {".py": "python", ".toml": "toml"}

_CODE_OR_LINK = re.compile(
    r"^ *(`{3,}).*?^ *\1$|`[^`\n]+`|\]\((?P<file>[^)\s#]+)(?P<rest>[^)]*)\)",
    re.DOTALL | re.MULTILINE,
)
_CODE_IN_ROW = re.compile(r"`[^`\n]+`")
_sources: dict[str, Path] = {}
"""The file of the repository, by the path that its page has in the site."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for module in re.findall(r"'api/([\w.]+)\.md'", str(config.nav)):
        text = f"# `{module}`\n\n::: {module}\n"
        files.append(File.generated(config, f"api/{module}.md", content=text))
    files.append(File.generated(config, "gallery.md", content=gallery()))
    waiting = [DOCS / page.src_uri for page in files.documentation_pages()]
    while waiting:
        source = waiting.pop()
        for target in targets(source):
            path = site_path(target)
            if path in files.src_uris:
                continue
            _sources[path] = target
            if path.endswith(".md"):
                file = File.generated(config, path, content=page_of(target))
                file.inclusion = InclusionLevel.NOT_IN_NAV
                waiting.append(target)
            else:
                file = File.generated(config, path, abs_src_path=str(target))
            files.append(file)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with links as the site has them, and with ``|`` in the code of a table unescaped."""
    hidden = page.meta.setdefault("hide", [])
    if page.parent is None:  # a section of its own, or of none
        hidden.append("navigation")
    if page.file.name == "leaderboard":  # its tables are wide
        hidden.append("toc")
    path = page.file.src_uri
    source = _sources.get(path, DOCS / path)
    folder = posixpath.dirname(path)

    def relink(found: re.Match[str]) -> str:
        target = target_of(found, source)
        if target is None:
            return found[0]
        return f"]({posixpath.relpath(site_path(target), folder or '.')}{found['rest']})"

    lines = _CODE_OR_LINK.sub(relink, markdown).split("\n")
    return "\n".join(
        _CODE_IN_ROW.sub(lambda code: code[0].replace(r"\|", "|"), line)
        if line.startswith("|")
        else line
        for line in lines
    )


def targets(source: Path) -> Iterator[Path]:
    """The files and folders that a page links to."""
    for found in _CODE_OR_LINK.finditer(page_of(source)):
        if target := target_of(found, source):
            yield target


def target_of(found: re.Match[str], source: Path) -> Path | None:
    """The file or folder of the repository that is linked to; None if it is none."""
    if not found["file"] or "://" in found["file"]:
        return None
    folder = source if source.is_dir() else source.parent
    target = (folder / found["file"]).resolve()
    return target if target.exists() and target.is_relative_to(ROOT) else None


def site_path(target: Path) -> str:
    """The path, in the site, of the source of a page, or of a file that is shown as it is."""
    if target == ROOT / "README.md":
        return "README.md"  # the home page stands for it
    base = DOCS if target.is_relative_to(DOCS) else ROOT
    path = target.relative_to(base).as_posix()
    if target.is_dir():
        return f"{path}/README.md"
    return f"{path}.md" if target.suffix in LANGUAGES else path


def page_of(source: Path) -> str:
    """The markdown of a page that is made of a file or a folder."""
    if source == GALLERY:
        return gallery()
    if source.is_dir():
        if (source / "README.md").is_file():
            return (source / "README.md").read_text(encoding="utf-8")
        names = sorted(path.name for path in source.iterdir() if path.suffix in {".md", *LANGUAGES})
        listed = "\n".join(f"- [{name}]({name})" for name in names)
        return f"# {source.relative_to(ROOT).as_posix()}\n\n{listed}\n"
    if source.suffix == ".md":
        return source.read_text(encoding="utf-8") if source.is_file() else ""
    text = source.read_text(encoding="utf-8")
    name = source.relative_to(ROOT).as_posix()
    shown = f"# {source.name}\n\n`{name}`\n\n````{LANGUAGES[source.suffix]}\n{text}````\n"
    return f"---\nsearch:\n  exclude: true\n---\n\n{shown}"


def gallery() -> str:
    """A card for each leaderboard under results/, with its pictures."""
    cards = []
    for leaderboard in sorted((ROOT / "results").glob("*/leaderboard.md")):
        folder = leaderboard.parent
        at = f"../results/{folder.name}"
        links = [f"[Leaderboard]({at}/leaderboard.md)"]
        if (folder / "report.html").is_file():
            links.append(f"[Report]({at}/report.html)")
        tasks = re.findall(r"^## (\S+ on \S+)", leaderboard.read_text("utf-8"), re.MULTILINE)
        parts = [f"**{folder.name}**: {', '.join(dict.fromkeys(tasks))}", " · ".join(links)]
        for name, what in (("samples", "Samples"), ("fid_vs_sparsity", "FID against sparsity")):
            if (folder / f"{name}.png").is_file():
                parts.append(f"[![{what} of {folder.name}]({at}/{name}.png)]({at}/leaderboard.md)")
        cards.append("-   " + "\n\n    ".join(parts))
    return (
        "# Gallery of results\n\n"
        "Leaderboards that were really run. Each has its own protocol: compare rows of one table, "
        "never FIDs of two. [How they were measured](../results/README.md) has commands, machines "
        "and reservations.\n\n"
        '<div class="grid cards" markdown>\n\n' + "\n\n".join(cards) + "\n\n</div>\n"
    )
