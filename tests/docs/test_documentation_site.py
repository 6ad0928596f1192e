"""The site: it is built without a warning, needs no network, and has what the pages link to."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from test_plugins_page import PUBLIC

pytest.importorskip("mkdocs", reason="the site takes the extra docs")

ROOT = Path(__file__).parents[2]
NAVIGATION = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Fetched(HTMLParser):
    """What a browser fetches to show a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given: dict[str, Any] = dict(attrs)
        if tag in {"img", "script", "iframe", "source"} and given.get("src"):
            self.found.add(given["src"])
        if tag == "link" and given.get("rel") not in {"canonical", "prev", "next"}:
            self.found.add(given["href"])


@pytest.mark.slow
def test_pages_need_no_network_and_nothing_is_missing(site: Path) -> None:
    pages = [page for page in site.rglob("*.html") if page.name not in {"404.html", "report.html"}]
    assert len(pages) > 40
    for page in pages:
        for address in Fetched(page.read_text(encoding="utf-8")).found:
            if not address.startswith("data:"):
                assert "//" not in address, f"{page} fetches {address}"
                assert (page.parent / address).is_file(), f"{page} lacks {address}"


@pytest.mark.slow
def test_results_are_there(site: Path) -> None:
    gallery = (site / "gallery.html").read_text(encoding="utf-8")
    for leaderboard in (ROOT / "results").glob("*/leaderboard.md"):
        page = f"results/{leaderboard.parent.name}/leaderboard.html"
        assert f'href="{page}"' in gallery
        assert (site / page).is_file()
    assert (site / "results/quickstart/report.html").stat().st_size > 100_000


@pytest.mark.slow
def test_docstrings_are_there(site: Path) -> None:
    missing = []
    for module, names in PUBLIC.items():
        page = (site / "api" / f"{module}.html").read_text(encoding="utf-8")
        missing += [f"{module}.{name}" for name in names if f'id="{module}.{name}"' not in page]
        assert not re.search(r":(meth|class|func|attr):", page)
    assert missing == ["dstbench.testing.checks"]  # griffe shows no function beside its package


def test_the_python_reference_is_of_all_that_is_public() -> None:
    assert sorted(re.findall(r"api/([\w.]+)\.md", NAVIGATION)) == sorted(PUBLIC)
