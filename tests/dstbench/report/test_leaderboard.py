import math

import pytest

from dstbench.errors import StoreError
from dstbench.records import Scores
from dstbench.report.leaderboard import leaderboard, tables


def rows(frame):
    return list(zip(frame["method"], frame["sparsity"], strict=True))


def test_mean_and_sample_deviation_over_seeds(make_record):
    frame = leaderboard([make_record("dense", 0, seed, fid) for seed, fid in enumerate((1, 3, 8))])
    assert frame["fid_mean"].item() == 4
    assert frame["fid_std"].item() == pytest.approx(math.sqrt((9 + 1 + 16) / 2))
    assert frame["fid_n"].item() == frame["seeds"].item() == 3


def test_one_seed_has_no_deviation(make_record):
    frame = leaderboard([make_record(fid=1.0)])
    assert math.isnan(frame["fid_std"].item())
    assert frame["fid_n"].item() == 1


@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_a_missing_score_counts_for_nothing(make_record, missing):
    frame = leaderboard([make_record(fid=2.0), make_record(seed=1, fid=missing)])
    assert frame["fid_mean"].item() == 2
    assert frame["fid_n"].item() == 1
    assert frame["seeds"].item() == 2


def test_dense_first_then_methods_as_they_come_then_ascending_sparsity(make_record):
    records = [
        make_record("rigl", 0.9),
        make_record("static", 0.5),
        make_record("rigl", 0.5),
        make_record("dense"),
    ]
    assert rows(leaderboard(records)) == [
        ("dense", 0),
        ("rigl", 0.5),
        ("rigl", 0.9),
        ("static", 0.5),
    ]


def test_settings_that_vary_are_part_of_the_method(make_record):
    records = [
        make_record("dense"),
        *(
            make_record("rigl", 0.5, cell={"sparsifier_settings": {"prune_rate": p, "every": 100}})
            for p in (0.5, 0.05)
        ),
        make_record("static", 0.5, cell={"sparsifier_settings": {"distribution": "erk"}}),
    ]
    assert list(leaderboard(records)["method"]) == [
        "dense",
        "rigl (prune_rate=0.5)",
        "rigl (prune_rate=0.05)",
        "static",
    ]


def test_counts_relative_to_the_network_without_masks(make_record):
    line = leaderboard([make_record("static", 0.75)]).iloc[0]
    assert line["whole_model_sparsity"] == 1 - 45 / 120
    assert line["active_parameters"] == 45
    assert line["active_parameters_ratio"] == 45 / 120
    assert line["inference_flops"] == 5e8
    assert line["inference_flops_ratio"] == line["training_flops_ratio"] == 0.25


def test_sparsities_that_were_reached(make_record):
    pruned = make_record("gmp", 0.8)
    counts = pruned.counts.model_copy(update={"mean_active_sparsifiable": 45.0})
    records = [
        pruned.model_copy(update={"counts": counts}),
        make_record("gmp", 0.8, seed=1),
        make_record("dense", status="failed"),
    ]
    dense, line = leaderboard(records).iloc
    assert line["sparsity"] == 0.8
    assert line["final_sparsity"] == pytest.approx(0.8)
    assert line["mean_sparsity"] == pytest.approx((0.55 + 0.8) / 2)
    assert math.isnan(dense["final_sparsity"])
    assert math.isnan(dense["mean_sparsity"])


def test_times_of_cells_that_ran_apart_have_no_ratio(make_record):
    frame = leaderboard([make_record(step=0.1), make_record("static", 0.5, step=0.08)])
    assert frame["training_step_seconds"].tolist() == [0.1, 0.08]
    assert "training_step_seconds_ratio" not in frame
    assert frame["step_time_ratio"].isna().all()
    assert frame["state_bytes"].isna().all()  # as in a record of an earlier version


def test_a_ratio_is_the_mean_of_the_cells_and_its_interval_covers_all_of_theirs(make_record):
    records = [
        make_record("static", 0.5, seed, timed=(step, sample))
        for seed, (step, sample) in enumerate([(0.4, 0.2), (0.5, 0.2), (0.6, 0.5)])
    ]
    line = leaderboard([*records, make_record("static", 0.5, 3)]).iloc[0]
    assert line["step_time_ratio"] == pytest.approx(0.5)
    assert (line["step_time_low"], line["step_time_high"]) == (pytest.approx(0.38), 0.62)
    assert line["sample_time_ratio"] == pytest.approx(0.3)
    assert (line["step_time_clock"], line["kernels"]) == ("wall", "masked dense")
    assert line["update_time"] == pytest.approx(0.4)
    assert line["update_time_per_step"] == pytest.approx(0.004)


def test_sizes_are_relative_to_the_same_network_without_masks(make_record):
    line = leaderboard([make_record("static", 0.5, sized=True)]).iloc[0]
    assert (line["state_bytes"], line["state_bytes_ratio"]) == (2500, 2500 / 2400)
    assert (line["model_bytes"], line["model_bytes_ratio"]) == (240, 0.5)


@pytest.mark.parametrize(("gpu", "peak"), [("Loom 9", 300.0), (None, math.nan)])
def test_peak_memory_is_that_of_a_gpu(make_record, gpu, peak):
    record = make_record(environment={"gpu": gpu}, peak_memory=300)
    assert leaderboard([record])["gpu_peak_bytes"].item() == pytest.approx(peak, nan_ok=True)


def test_failed_cells_are_not_averaged_in(make_record):
    records = [
        make_record(fid=1.0),
        make_record(seed=1, status="failed", error="no memory", scores=Scores(fid=1000)),
        make_record("rigl", 0.5, status="diverged", error="loss nan at step 3"),
    ]
    frame = leaderboard(records)
    assert rows(frame) == [("dense", 0), ("rigl", 0.5)]
    assert frame["fid_mean"].iloc[0] == 1
    assert frame["failed"].tolist() == [1, 1]
    assert frame["seeds"].tolist() == [1, 0]
    assert frame["fid_mean"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("other", "variants"),
    [
        ({"protocol": {"samples": 50}}, ["samples=1000", "samples=50"]),
        (
            {"protocol": {"weights_hash": "f" * 64}},
            ["weights_hash=0123456789ab", "weights_hash=ffffffffffff"],
        ),
        (
            {"environment": {"packages": {"torch-fidelity": "0.3.0"}}},
            ["", "library=torch-fidelity 0.3.0"],
        ),
        ({"cell": {"evaluation": {"neighbours": 5}}}, ["neighbours=3", "neighbours=5"]),
        ({"cell": {"training": {"steps": 9}}}, ["", "steps=9"]),
        ({"cell": {"extractor_settings": {"weights": "x.pth"}}}, ["", "weights=x.pth"]),
    ],
)
def test_what_must_not_be_compared_is_in_separate_tables(make_record, other, variants):
    found = tables([make_record(fid=1.0), make_record(seed=1, fid=2.0, **other)])
    assert [table.variant for table in found] == variants
    assert [table.frame["fid_mean"].item() for table in found] == [1, 2]


def test_settings_without_influence_on_the_result_do_not_part_a_table(make_record):
    often = {"training": {"log_every": 1, "steps": 10}, "evaluation": {"batch_size": 8}}
    seldom = {"training": {"log_every": 9, "steps": 10}, "evaluation": {"batch_size": 32}}
    (table,) = tables([make_record(seed=0, cell=often), make_record(seed=1, cell=seldom)])
    assert table.variant == ""
    assert [len(row.records) for row in table.rows] == [2]


VERSIONS = {"model": "lab 1.0", "dataset": "dstbench 0.1", "sparsifier": "mine 1.0"}


def of(**versions):
    return {"cell": {"versions": VERSIONS | versions}}


def test_versions_of_a_sparsifier_are_rows_of_one_table(make_record):
    dense = {"model": "lab 1.0", "dataset": "dstbench 0.1"}
    (table,) = tables(
        [
            make_record(fid=1.0, cell={"versions": dense}),
            make_record("mine", 0.5, 0, 3.0, **of()),
            make_record("mine", 0.5, 1, 5.0, **of()),
            make_record("mine", 0.5, 0, 2.0, **of(sparsifier="mine 1.1")),
            make_record("static", 0.5, 0, 7.0, **of(sparsifier="dstbench 0.1")),
        ]
    )
    assert table.heading == "ldm on digits"
    assert rows(table.frame) == [
        ("dense", 0),
        ("mine (mine 1.0)", 0.5),
        ("mine (mine 1.1)", 0.5),
        ("static", 0.5),
    ]
    assert table.frame["fid_mean"].tolist() == [1, 4, 2, 7]


@pytest.mark.parametrize("kind", ["model", "dataset", "feature extractor"])
def test_versions_of_what_is_trained_or_scored_with_are_tables_of_their_own(make_record, kind):
    records = [make_record(fid=1.0, **of()), make_record(fid=2.0, **of(**{kind: "lab 1.1"}))]
    found = tables(records)
    assert [table.frame["fid_mean"].item() for table in found] == [1, 2]
    assert found[1].heading == "ldm on digits (lab 1.1)"


def test_a_version_is_said_once_however_many_kinds_of_plugins_it_provides(make_record):
    kinds = ("model", "dataset", "feature extractor")
    found = tables(
        [
            make_record(cell={"versions": dict.fromkeys(kinds, version)})
            for version in ("dstbench 0.1", "dstbench 0.2")
        ]
    )
    assert [table.variant for table in found] == ["dstbench 0.1", "dstbench 0.2"]


def test_records_without_versions_are_not_mixed_with_others(make_record):
    found = tables([make_record(fid=1.0), make_record(fid=2.0, **of())])
    assert [table.variant for table in found] == ["", "lab 1.0, dstbench 0.1"]


def test_what_a_setting_and_the_protocol_both_say_is_said_once(make_record):
    found = tables(
        [
            make_record(cell={"evaluation": {"samples": n}}, protocol={"samples": n})
            for n in (10, 20)
        ]
    )
    assert [table.heading for table in found] == [
        "ldm on digits (samples=10)",
        "ldm on digits (samples=20)",
    ]


def test_one_table_per_task_with_failed_cells_in_their_own(make_record):
    found = tables(
        [
            make_record("static", 0.5, status="failed", cell={"dataset": "faces"}),
            make_record(),
            make_record(cell={"dataset": "faces"}),
        ]
    )
    assert [table.heading for table in found] == ["ldm on faces", "ldm on digits"]
    assert [len(table.rows) for table in found] == [2, 1]


def test_skipped_cells_are_no_failures_and_a_task_of_them_has_no_row(make_record):
    def skipped(**cell):
        return make_record(seed=1, status="skipped", error="ask", cell=cell)

    frame = leaderboard([skipped(dataset="faces"), make_record(fid=2.0), skipped()])
    assert frame["task"].tolist() == ["ldm on digits"]
    assert frame[["seeds", "failed", "skipped"]].to_numpy().tolist() == [[1, 0, 1]]
    nothing = leaderboard([skipped()])
    assert len(nothing) == 0
    assert list(nothing.columns) == list(frame.columns)


def test_nothing_to_rank():
    with pytest.raises(StoreError, match="no record"):
        leaderboard([])


def test_two_records_of_a_cell(make_record):
    with pytest.raises(StoreError, match=make_record().cell.id):
        leaderboard([make_record(fid=1.0), make_record(fid=2.0)])


def test_differences_to_dense_with_interval_and_tests(make_record):
    # Differences −1, −1, −2: t = −4 at two degrees of freedom (see test_statistics.py).
    fids = {("dense", 0): (10, 12, 14), ("a", 0.5): (9, 11, 12), ("b", 0.9): (9, 11, 13)}
    frame = leaderboard(
        [
            make_record(*row, seed, fid)
            for row, values in fids.items()
            for seed, fid in enumerate(values)
        ]
    )
    dense, a, b = frame.iloc
    assert math.isnan(dense["fid_difference"])
    assert a["fid_difference"] == pytest.approx(-4 / 3)
    assert a["fid_low"] < -2 < -4 / 3 < a["fid_high"]
    assert a["fid_p"] == a["fid_holm_p"] == pytest.approx(1 - 4 / math.sqrt(18))
    assert b["fid_difference"] == -1
    assert math.isnan(b["fid_p"])
