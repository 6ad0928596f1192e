"""The report as a file: all that there is, escaped, in one piece."""

import re
from pathlib import Path

import pytest

from dstbench.errors import StoreError
from dstbench.records import Floor, Scores
from dstbench.report.page import _order, write_page


@pytest.fixture
def text(shown, tmp_path) -> str:
    path = tmp_path / "deep" / "report.html"
    write_page([shown], path, "Mine & yours")
    return path.read_text(encoding="utf-8")


def own(text: str) -> str:
    """The page without the libraries in it."""
    return re.sub(r"<script\b.*?</script>", "", text, flags=re.DOTALL)


def test_it_fetches_nothing(text: str) -> None:
    page = own(text)
    assert "http" not in page
    assert not re.search(r'<(script|link|img)[^>]+(src|href)="(?!data:)', text)
    assert len(text) < 10e6


def test_it_shows_table_charts_and_samples(text: str) -> None:
    page = own(text)
    assert "<title>Mine &amp; yours</title>" in page
    assert "8 cells done" in page
    assert page.count('class="plotly-graph-div"') == 4  # by sparsity, by FLOPs; curves; layers
    assert page.count('data-name="seed') == 3
    assert page.count("data:image/png;base64,") == 13  # of one seed there are no real images
    assert "right of it the training image whose features are nearest" in page
    for words in ("How samples were scored", "Machines and versions"):
        assert words in page


def test_large_pictures_leave_out_further_seeds_and_not_the_first(
    shown, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("dstbench.report.page.STRIPS", 1)
    path = tmp_path / "report.html"

    write_page([shown], path, "large")

    seeds = re.findall(r'data-name="seed (\d)', path.read_text(encoding="utf-8"))
    assert set(seeds) == {"3"}  # and not 4


def test_differences_that_were_tested_are_told(shown, make_record, tmp_path) -> None:
    shown.records = [
        make_record(method, sparsity, seed, fid=10 + 5 * sparsity + seed * (1 + sparsity))
        for method, sparsity in (("dense", 0.0), ("static", 0.5))
        for seed in range(3)
    ]
    path = tmp_path / "report.html"

    write_page([shown], path, "tested")

    page = own(path.read_text(encoding="utf-8"))
    assert "Differences of FID (lower is better), paired over 3 seeds" in page
    assert "<td>static − dense</td><td>+3.00</td>" in page


def test_text_of_strangers_is_escaped(shown, make_record, tmp_path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    failed = make_record("static", 0.25, 3, status="failed", error=f"Traceback\nError: {evil}")
    shown.records = [*shown.records, failed]
    shown.name = evil
    path = tmp_path / "report.html"

    write_page([shown], path, evil)

    text = path.read_text(encoding="utf-8")
    assert evil not in text
    assert "Cells that did not finish (1)" in text
    assert "Error: &lt;img src=x onerror=alert(1)&gt;" in text


def test_a_warning_stands_above_the_table(shown, tmp_path) -> None:
    floor = Floor(name="<real>, blurred", kind="distorted", images=9, reference_images=9,
                  scores=Scores(fid=1))  # fmt: skip
    shown.records = [record.model_copy(update={"floors": (floor,)}) for record in shown.records]
    path = tmp_path / "report.html"

    write_page([shown], path, "warned")

    text = own(path.read_text(encoding="utf-8"))
    told = text.index("worse than distorted real images (&lt;real&gt;, blurred: 1.00)")
    assert told < text.index("<table")


def test_several_results_stand_one_below_the_other(shown, tmp_path) -> None:
    path = tmp_path / "report.html"
    write_page([shown, shown], path, "two")
    assert own(path.read_text(encoding="utf-8")).count("<section") == 2


def test_there_is_none_of_nothing(shown, tmp_path) -> None:
    shown.records = []
    with pytest.raises(StoreError, match="no record to make a report of"):
        write_page([shown], tmp_path / "report.html", "empty")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_to_is_named(shown, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file.*cannot be written"):
        write_page([shown], tmp_path / "file" / "report.html", "nowhere")
    with pytest.raises(StoreError, match="is a folder; name a file to write"):
        write_page([shown], Path(), "here")


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("416,859 (×1.000)", "416859"), ("6.25e+12 (×1.000)", "6.25e+12"), ("—", "1e300"),
        ("-0.5 ± 1", "-0.5"), ("static", "static"), ("0.62 [0.50, 0.70]", "0.62"),
        ("rigl (prune_rate=0.05)", "rigl (prune_rate=0.05)"),
    ],
)  # fmt: skip
def test_entries_are_sorted_by_their_number(text: str, order: str) -> None:
    assert _order(text) == order
