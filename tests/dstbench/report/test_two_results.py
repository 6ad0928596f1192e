"""Two results compared: what is paired with what, what differs, and what the tests say of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import ttest_rel

import dstbench
from dstbench.errors import StoreError
from dstbench.records import Record
from dstbench.report.comparisons import Reference
from dstbench.report.results import Results
from dstbench.report.two_results import TwoResults
from dstbench.store import Store
from dstbench.store.layout import Layout

MakeRecord = Callable[..., Record]
SHORT, LONG = {"training": {"steps": 10}}, {"training": {"steps": 20}}


def results(name: str, *records: Record, margin: float = 0.05) -> Results:
    return Results(Store(Path(name)), records, name, Layout(), Reference(margin=margin))


def compared(first: Results, second: Results) -> TwoResults:
    return TwoResults(first, second, (first.name, second.name))


@pytest.fixture
def rows(make_record: MakeRecord) -> Callable[..., list[Record]]:
    """Records of one row, by their FID, from seed 0 on."""

    def rows(sparsifier: str, sparsity: float, *fids: float, **fields: Any) -> list[Record]:
        return [
            make_record(sparsifier, sparsity, seed, fid=fid, **fields)
            for seed, fid in enumerate(fids)
        ]

    return rows


def verdicts(found: TwoResults) -> dict[tuple[str, float], str]:
    fids = found.scores.query("score == 'fid'")
    return {(row.method, row.sparsity): row.verdict for row in fids.itertuples()}


def test_scores_are_paired_over_shared_seeds(rows: Callable[..., list[Record]]) -> None:
    old = [20.0, 21.0, 25.0, 22.0]
    new = [18.0, 19.5, 22.8, 20.1, 3.0]
    found = compared(
        results("mine", *rows("dense", 0, *old, cell=SHORT)),
        results("yours", *rows("dense", 0, *new, cell=LONG)),
    )
    (line,) = found.scores.to_dict("records")
    test = ttest_rel(new[:4], old)
    assert line["seeds"] == 4
    assert (line["first"], line["second"]) == pytest.approx((22.0, 20.1))
    assert line["difference"] == pytest.approx(-1.9)
    assert (line["low"], line["high"]) == pytest.approx(tuple(test.confidence_interval()))
    assert line["p"] == line["holm_p"] == pytest.approx(test.pvalue)
    assert line["verdict"] == "better"
    assert line["margin"] == pytest.approx(0.05 * 22)


def test_verdicts(rows: Callable[..., list[Record]]) -> None:
    mine = [
        *rows("dense", 0, 10, 20, 30),
        *rows("static", 0.5, 10, 10, 10, 10),
        *rows("static", 0.9, 10, 10.1, 9.9, 10),
        *rows("rigl", 0.5, 10, 20, 15),
        *rows("rigl", 0.9, 10, 11),
        *rows("magran", 0.5, 100, 100, 100, 100),
        *rows("magran", 0.9, 5, 6, 7),
    ]
    yours = [
        *rows("dense", 0, 10, 20, 30),
        *rows("static", 0.5, 15, 15.1, 14.9, 15),
        *rows("static", 0.9, 10.1, 10, 9.9, 10),
        *rows("rigl", 0.5, 12, 19, 15.5),
        *rows("rigl", 0.9, 5, 7),
        *rows("magran", 0.5, 101, 101.01, 100.99, 101),
        *rows("magran", 0.9, 4, 5, 6),
    ]
    found = compared(results("mine", *mine), results("yours", *yours))
    assert verdicts(found) == {
        ("dense", 0): "the same",
        ("static", 0.5): "worse",
        ("static", 0.9): "as good",
        ("rigl", 0.5): "no difference detected",
        ("rigl", 0.9): "no verdict: fewer than 3 seeds",
        ("magran", 0.5): "worse, by less than the margin",
        ("magran", 0.9): "no verdict: the differences of all seeds are the same",
    }
    text = found.text()
    assert "- cells in both: 23, 5 of them with equal scores" in text
    assert "Holm-corrected at 5% over all rows of a score (5 of FID)" in text


def test_what_differs_is_named(rows: Callable[..., list[Record]]) -> None:
    machine = {"packages": {"torch": "2.6", "numpy": "2.0"}, "threads": 2}
    rigl = {"sparsifier_settings": {"prune_rate": 0.5}, "versions": {"sparsifier": "dstbench 1"}}
    other = {"sparsifier_settings": {"prune_rate": 0.1}, "versions": {"sparsifier": "dstbench 2"}}
    found = compared(
        results("mine", *rows("rigl", 0.5, 1, 2, 3, cell=SHORT | rigl, environment=machine)),
        results(
            "yours",
            *rows(
                "rigl", 0.5, 2, 3, 5, cell=LONG | other, step=0.5,
                environment=machine | {"packages": {"torch": "2.7", "numpy": "2.0"}},
            ),
        ),
    )  # fmt: skip
    told = {(row.kind, row.name): (row.first, row.second) for row in found.settings.itertuples()}
    assert told == {
        ("Settings", "training.steps"): ("10", "20"),
        ("Settings", "sparsifiers.rigl.prune_rate"): ("0.5", "0.1"),
        ("Settings", "versions.sparsifier rigl"): ("dstbench 1", "dstbench 2"),
        ("Machines and versions", "packages.torch"): ("2.6", "2.7"),
    }
    costs = found.costs.set_index("cost")
    seconds = tuple(costs.loc["training_step_seconds", ["first", "second"]])
    assert seconds == pytest.approx((0.05, 0.5))
    text = found.text()
    assert "| packages.torch | 2.6    | 2.7     |" in text
    assert "make no ratio" in text


def test_what_was_scored_otherwise_is_not_compared(rows: Callable[..., list[Record]]) -> None:
    found = compared(
        results("mine", *rows("dense", 0, 1, 2, 3)),
        results("yours", *rows("dense", 0, 4, 5, 6, protocol={"extractor": "another"})),
    )
    assert len(found.scores) == 0
    assert "| extractor | lenet  | another |" in found.text()
    assert "Not compared: samples were not scored in the same way." in found.text()


def test_tables_and_rows_find_their_partners(rows: Callable[..., list[Record]]) -> None:
    def rigl(rate: float) -> dict[str, Any]:
        return {"sparsifier_settings": {"prune_rate": rate}}

    elsewhere = {"dataset": "faces"}
    mine = [
        *rows("dense", 0, 1), *rows("rigl", 0.5, 2, cell=rigl(0.5)),
        *rows("dense", 0, 3, cell=elsewhere), *rows("magran", 0.5, 9),
    ]  # fmt: skip
    yours = [
        *rows("dense", 0, 4, cell=SHORT), *rows("dense", 0, 1),
        *rows("rigl", 0.5, 5, cell=rigl(0.1)), *rows("rigl", 0.5, 6, cell=rigl(0.5)),
    ]  # fmt: skip
    found = compared(results("mine", *mine), results("yours", *yours))
    (pair,) = found.pairs
    assert pair.first.records[0].cell == pair.second.records[0].cell
    assert [(old.method, new.method) for old, new in pair.rows] == [
        ("dense", "dense"),
        ("rigl", "rigl (prune_rate=0.5)"),
    ]
    alone = found.as_dict()["alone"]
    assert alone["first"] == {"tables": ["ldm on faces"], "rows": [["magran", 0.5]]}
    assert alone["second"]["rows"] == [["rigl (prune_rate=0.1)", 0.5]]
    (table,) = alone["second"]["tables"]
    assert table.startswith("ldm on digits (")
    assert "Rows of mine alone: magran, S = 0.5." in found.text()
    assert "## In mine alone\n\n- ldm on faces: 1 cell" in found.text()


def test_what_is_not_known_is_no_number_of_json(rows: Callable[..., list[Record]]) -> None:
    found = compared(results("mine", *rows("dense", 0, 1)), results("yours", *rows("dense", 0, 1)))
    told = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert told["names"] == {"first": "mine", "second": "yours"}
    assert told["cells"] == {"first": 1, "second": 1, "both": 1, "same": 1}
    assert told["scores"][0]["holm_p"] is None
    assert told["scores"][0]["verdict"] == "the same"


def test_text_is_no_markup(rows: Callable[..., list[Record]]) -> None:
    odd = {"cpu": "<b>|x"}
    found = compared(
        results("<i>", *rows("dense", 0, 1)),
        results("a|b", *rows("dense", 0, 1, environment=odd)),
    )
    text = found.text()
    assert "# &lt;i&gt; and a\\|b" in text
    assert "&lt;b&gt;\\|x" in text
    assert "<" not in text


def test_folders_without_a_result(make_record: MakeRecord, tmp_path: Path) -> None:
    for name in ("a/mine", "b/mine"):
        for seed, status in ((0, "failed"), (1, "skipped")):
            record = make_record(seed=seed, status=status, error="because")
            folder = Store(tmp_path / name).cell(record.cell)
            folder.path.mkdir(parents=True)
            folder.write_record(record)
    found = dstbench.compare(tmp_path / "a/mine", tmp_path / "b/mine", margin=0.1)
    assert found.names == (str(tmp_path / "a/mine"), str(tmp_path / "b/mine"))
    assert "1 failed, 1 skipped" in found.text()
    assert "no row of both has a score" in found.text()
    assert found.first.reference.margin == 0.1
    with pytest.raises(StoreError, match="no records here"):
        dstbench.compare(tmp_path / "a/mine", tmp_path)
