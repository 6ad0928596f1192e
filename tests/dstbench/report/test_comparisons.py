"""How rows are compared: with a reference, and with each other."""

import math
from collections.abc import Callable, Mapping, Sequence
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dstbench.errors import ConfigError
from dstbench.records import Record, Scores
from dstbench.report.comparisons import AGAINST_DENSE, Comparison, Reference
from dstbench.report.leaderboard import comparison_frame, tables
from dstbench.report.rows import FID
from dstbench.report.text import render
from dstbench.report.verdicts import differences, marks, recommendation

MakeRecord = Callable[..., Record]
Fids = Mapping[tuple[str, float], Sequence[float | None]]
"""FID of each seed, by method and sparsity; None where a seed was not run."""


@pytest.fixture
def of(make_record: MakeRecord) -> Callable[[Fids], list[Record]]:
    """Makes the records of cells with these FIDs."""

    def records(fids: Fids) -> list[Record]:
        return [
            make_record(method, sparsity, seed, fid)
            for (method, sparsity), values in fids.items()
            for seed, fid in enumerate(values)
            if fid is not None
        ]

    return records


Of = Callable[[Fids], list[Record]]


def compared(records: list[Record], reference: Reference = AGAINST_DENSE) -> list[Comparison]:
    (table,) = tables(records, reference)
    return [each for each in table.comparisons if each.metric == FID]


def names(found: Sequence[Comparison]) -> list[tuple[str, float, str, float, bool]]:
    return [(*each.row.key, *each.other.key, each.with_reference) for each in found]


# Differences to dense of a: −1, −1, −2 (p = 1 − 4 / √18 = 0.0572), of b: 9, 10, 11 (t = 10 √3).
THREE = {
    ("dense", 0.0): (20.0, 22.0, 24.0),
    ("a", 0.5): (19.0, 21.0, 22.0),
    ("b", 0.5): (29.0, 32.0, 35.0),
    ("b", 0.9): (99.0, 99.1, 99.4),
}


def test_each_row_with_dense_and_methods_at_the_same_sparsity(of: Of) -> None:
    assert names(compared(of(THREE))) == [
        ("a", 0.5, "dense", 0.0, True),
        ("b", 0.5, "dense", 0.0, True),
        ("b", 0.9, "dense", 0.0, True),
        ("a", 0.5, "b", 0.5, False),
    ]


def test_p_values_are_corrected_over_all_comparisons_of_a_score(of: Of) -> None:
    found = compared(of(THREE))
    ps = [each.tests.p for each in found]
    assert ps[0] == pytest.approx(1 - 4 / math.sqrt(18))
    assert ps[1] == pytest.approx(1 - 10 * math.sqrt(3) / math.sqrt(302))
    # By hand: sorted, the smallest of four times 4, the next times 3, …, never falling.
    order = sorted(range(4), key=lambda i: ps[i])
    largest, expected = 0.0, [0.0] * 4
    for rank, i in enumerate(order):
        largest = max(largest, ps[i] * (4 - rank))
        expected[i] = largest
    assert [each.tests.holm_p for each in found] == pytest.approx(expected)
    assert [each.mark for each in found] == ["", "▼", "▼", "▲"]


def test_equivalence_is_corrected_over_the_rows_alone(of: Of) -> None:
    found = compared(of(THREE), Reference(margin=0.25))
    assert [each.margin for each in found] == pytest.approx([5.5] * 3 + [math.nan], nan_ok=True)
    # Of a: the lower bound is (5.5 − 4/3) / (1/3) = 12.5 standard errors away.
    p = 0.5 - 12.5 / (2 * math.sqrt(2 + 12.5**2))
    assert found[0].tests.equivalence_p == pytest.approx(p)
    assert found[0].tests.equivalence_holm_p == pytest.approx(3 * p)
    # Not worse by more than 5.5: (−4/3 − 5.5) / (1/3) = −20.5.
    q = 0.5 - 20.5 / (2 * math.sqrt(2 + 20.5**2))
    assert found[0].tests.not_worse_holm_p == pytest.approx(3 * q)
    assert [each.mark for each in found] == ["≈", "▼", "▼", "▲"]
    assert math.isnan(found[3].tests.equivalence_p)


def test_against_another_method_at_the_same_sparsity(of: Of) -> None:
    found = compared(of(THREE), Reference("a"))
    assert names(found) == [("b", 0.5, "a", 0.5, True)]
    (table,) = tables(of(THREE), Reference("b"))
    assert names(table.comparisons) == [("a", 0.5, "b", 0.5, True)]
    assert "against b at the same S" in marks(table)
    assert recommendation(table) is None
    with pytest.raises(ConfigError, match=r"with 'c'.*known: a, b, dense"):
        compared(of(THREE), Reference("c"))


def test_a_higher_score_is_better(make_record: MakeRecord) -> None:
    records = [
        make_record(method, sparsity, seed, scores=Scores(recall=value))
        for method, sparsity, values in [
            ("dense", 0.0, (0.5, 0.6, 0.7)),
            ("up", 0.5, (0.6, 0.701, 0.799)),
            ("down", 0.5, (0.4, 0.502, 0.599)),
        ]
        for seed, value in enumerate(values)
    ]
    (table,) = tables(records)
    assert [each.mark for each in table.comparisons] == ["▲", "▼", "▲"]
    not_worse = [each.tests.not_worse_p < 0.01 for each in table.comparisons]
    assert not_worse == [True, False, False]


# Odd cases


@pytest.mark.parametrize("seeds", [1, 2])
def test_too_few_seeds_for_a_verdict(of: Of, seeds: int) -> None:
    few = {row: values[:seeds] for row, values in THREE.items()}
    (table,) = tables(of(few), Reference(margin=10))
    assert [each.mark for each in table.comparisons] == [""] * 4
    assert recommendation(table) is None
    told = "there is one." if seeds == 1 else "there are 2."
    assert marks(table).startswith("No marks: a test takes at least 3 seeds that both rows have; ")
    assert told in marks(table)
    assert (differences(table) is None) == (seeds == 1)
    text = render(of(few))
    assert not any(mark in text.split("\n- ")[0] for mark in "▲▼≈△")
    assert ("**" in text) == (seeds == 2)


def test_seeds_that_are_missing(of: Of, make_record: MakeRecord) -> None:
    records = of({("dense", 0.0): (1.0, 2.0, 3.0, 4.0), ("a", 0.5): (None, 3.0, 5.0, 5.0)})
    records += [make_record("a", 0.5, 4, 7.0), make_record("b", 0.5, 9, 7.0)]
    (found,) = compared(records)
    assert found.differences.values == (1, 2, 1)


def test_a_cell_that_diverged_is_not_compared(of: Of, make_record: MakeRecord) -> None:
    records = of({("dense", 0.0): (1.0, 2.0, 3.0), ("a", 0.5): (2.0, 4.0)})
    records += [make_record("a", 0.5, 2, math.nan), make_record("b", 0.5, 0, status="diverged")]
    (found,) = compared(records)
    assert found.differences.values == (1, 2)


def test_differences_without_a_spread(of: Of) -> None:
    same = (1.0, 2.0, 3.0)
    (table,) = tables(of({("dense", 0.0): same, ("a", 0.5): same}))
    (found,) = table.comparisons
    assert (found.differences.mean, found.mark) == (0, "")
    assert math.isnan(found.tests.holm_p)
    assert "leaves nothing to test" in marks(table)
    assert differences(table) is None


def test_without_dense(of: Of) -> None:
    fids = {row: values for row, values in THREE.items() if row[0] != "dense"}
    (table,) = tables(of(fids))
    assert names(table.comparisons) == [("a", 0.5, "b", 0.5, False)]
    assert marks(table).startswith("No marks: no row shares a seed with dense. Bold")
    assert differences(table) is not None
    assert recommendation(table) is None


def test_tasks_are_families_of_their_own(make_record: MakeRecord) -> None:
    records = [
        make_record(method, sparsity, seed, fid, cell={"model": model, "dataset": dataset})
        for model in ("ldm", "chirodiff")
        for dataset in ("digits", "strokes")
        for (method, sparsity), fids in THREE.items()
        for seed, fid in enumerate(fids)
    ]
    frame = comparison_frame(records)
    fids = frame[frame["score"] == "fid"]
    assert fids.groupby("table")["holm_p"].apply(sorted).map(tuple).nunique() == 1
    assert list(fids["table"].unique()) == [
        "ldm on digits", "ldm on strokes", "chirodiff on digits", "chirodiff on strokes"
    ]  # fmt: skip


def test_no_comparison_at_all(make_record: MakeRecord) -> None:
    frame = comparison_frame([make_record(fid=1.0)])
    assert len(frame) == 0
    assert "holm_p" in frame.columns


# Words


def test_the_sparsest_row_that_is_not_worse(of: Of, make_record: MakeRecord) -> None:
    fids = THREE | {("b", 0.75): (20.1, 22.0, 24.2), ("a", 0.75): (19.0, 21.5, 24.0)}
    records = of(fids)
    (table,) = tables(records)
    # b at 0.75: differences 0.1, 0, 0.2 to a margin of 0.05 · 22 = 1.1.
    assert recommendation(table) is not None
    assert (recommendation(table) or "").startswith(
        "Sparsest rows not worse than dense by more than 5% of dense's FID: "
    )
    timed = [
        make_record("b", 0.75, seed, fid, timed=(0.6, 0.5)) if fid else None
        for seed, fid in enumerate(fids["b", 0.75])
    ]
    others = [record for record in records if record.cell.sparsifier != "a"]
    others = [record for record in others if record.cell.sparsity != 0.75]
    (table,) = tables([*others, *filter(None, timed)])
    # (0.1 − 1.1) / (0.1 / √3) = −17.3; of three rows, the least p-value.
    p = 3 * (0.5 - 17.3205 / (2 * math.sqrt(2 + 17.3205**2)))
    assert recommendation(table) == (
        "Sparsest row not worse than dense by more than 5% of dense's FID: b, S = 0.75, measured "
        "step time × 0.60 ± 0.02 (one-sided paired t-test over 3 seeds, Holm-corrected at 5% over "
        f"3 rows: p = {p:.3f})."
    )


def test_no_recommendation_where_tests_say_nothing(of: Of) -> None:
    (table,) = tables(of({row: THREE[row] for row in (("dense", 0.0), ("b", 0.5))}))
    assert recommendation(table) is None


def test_differences_are_told_with_their_intervals(of: Of) -> None:
    (table,) = tables(of(THREE))
    found = differences(table)
    assert found
    title, (header, body) = found
    assert title == (
        "Differences of FID (lower is better), paired over 3 seeds; p of two-sided t-tests, "
        "Holm-corrected over these 4:"
    )
    assert header == ["S", "score", "A − B", "mean difference", "95 % interval", "p (Holm)"]
    half = 0.95 * math.sqrt(2) / math.sqrt(1 - 0.95**2) / 3
    assert body[0] == [
        "0.5", "FID", "a − dense", "-1.33", f"{-4 / 3 - half:+.2f} to {-4 / 3 + half:+.2f}",
        "0.057",
    ]  # fmt: skip
    assert [line[2] for line in body] == ["a − dense", "b − dense", "b − dense", "a − b"]


def test_the_note_names_its_tests(of: Of) -> None:
    (table,) = tables(of(THREE))
    text = marks(table)
    for part in (
        "two-sided paired t-tests over the 3 seeds",
        "Holm-corrected at 5% over all comparisons of a score in this table (4 of FID",
        "within ± 5% of its mean score, by two one-sided t-tests (TOST)",
        "no mark: no difference detected",
    ):
        assert part in text


# Whatever the scores are

SOME_FIDS = st.dictionaries(
    st.sampled_from([("dense", 0.0), ("a", 0.5), ("b", 0.5), ("b", 0.9), ("c", 0.9)]),
    st.lists(st.integers(1, 60).map(float) | st.none() | st.just(math.nan), max_size=5),
    min_size=1,
).filter(lambda fids: any(fid is not None for values in fids.values() for fid in values))

WITH_FIXTURES = settings(
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # which only makes records
)


@WITH_FIXTURES
@given(SOME_FIDS, st.randoms())
def test_the_order_of_records_changes_no_mark(of: Of, fids: Fids, random: Random) -> None:
    records = of(fids)
    shuffled = random.sample(records, len(records))

    def told(records: list[Record]) -> dict[object, tuple[str, bool]]:
        return {
            (*each.row.key, *each.other.key): (each.mark, each.not_worse)
            for each in compared(records)
            if each.with_reference
        }

    assert told(records) == told(shuffled)


@WITH_FIXTURES
@given(SOME_FIDS, st.floats(0, 2))
def test_no_mark_without_three_seeds_and_a_corrected_test(
    of: Of, fids: Fids, margin: float
) -> None:
    for each in compared(of(fids), Reference(margin=margin)):
        assert not (each.better and each.worse)
        if each.differences.seeds < 3:
            assert not each.mark
        if "▲" in each.mark or "▼" in each.mark:
            assert each.tests.p <= each.tests.holm_p < 0.05
        if each.equivalent:
            assert each.not_worse
            assert abs(each.differences.mean) < each.margin


@WITH_FIXTURES
@given(SOME_FIDS, st.sampled_from([0.25, 0.5, 2.0, 8.0]))
def test_marks_do_not_depend_on_the_unit_of_a_score(of: Of, fids: Fids, unit: float) -> None:
    other = {row: [fid and fid * unit for fid in values] for row, values in fids.items()}
    assert [e.mark for e in compared(of(fids))] == [e.mark for e in compared(of(other))]


@WITH_FIXTURES
@given(SOME_FIDS)
def test_every_leaderboard_can_be_told(of: Of, fids: Fids) -> None:
    for format in ("markdown", "latex", "csv", "json"):
        assert render(of(fids), format)  # type: ignore[arg-type]
