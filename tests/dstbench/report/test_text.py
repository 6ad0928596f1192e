import io
import json
import re

import pandas as pd
import pytest

from dstbench.errors import StoreError
from dstbench.records import Scores
from dstbench.report.leaderboard import leaderboard, tables
from dstbench.report.published import published
from dstbench.report.text import render, render_tables
from dstbench.settings import TargetSettings


@pytest.fixture
def records(make_record):
    """Static is better within noise (p = 0.057), RigL beyond it (p = 0.003, corrected 0.010),
    MagRan failed; RigL's cells were timed, static's are of an earlier version."""
    traceback = "Traceback (most recent call last):\n  …\nMemoryError: no room\n"
    return [
        *(make_record("dense", 0, seed, fid, step=0.1) for seed, fid in enumerate((10, 12, 14))),
        *(make_record("static", 0.5, seed, fid) for seed, fid in enumerate((9, 11, 12))),
        *(
            make_record("rigl", 0.5, seed, fid, timed=(0.5 + seed / 100, 0.25), sized=True)
            for seed, fid in enumerate((9, 10.9, 13.1))
        ),
        make_record("magran", 0.9, 0, status="failed", error=traceback),
    ]


MARKDOWN = """\
# Three methods

## ldm on digits

| method | S | whole-model S | seeds | FID ↓ | active parameters (×) \
| theoretical GFLOPs (×) | theoretical training FLOPs (×) \
| state MiB (×) | model MiB (×) | step time (×) | sample time (×) |
|:-|-:|-:|-:|-:|-:|-:|-:|-:|-:|-:|-:|
| dense | 0 | 0.000 | 3 | 12.00 ± 2.00 | 120 (×1.000) | 2.00 (×1.000) | 6.00e+12 (×1.000) \
| — | — | — | — |
| static | 0.5 | 0.417 | 3 | **10.67 ± 1.53** | 70 (×0.583) | 1.00 (×0.500) \
| 3.00e+12 (×0.500) | — | — | — | — |
| rigl | 0.5 | 0.417 | 3 | 11.00 ± 2.05 ▲ | 70 (×0.583) | 1.00 (×0.500) \
| 3.00e+12 (×0.500) | 0.00238 (×1.042) | 0.000229 (×0.500) | 0.51 ± 0.03 | 0.25 ± 0.02 |
| magran | 0.9 | — | 0 | — | — | — | — | — | — | — | — |

- Sparsest rows not worse than dense by more than 5% of dense's FID: static, S = 0.5; rigl, S = \
0.5, measured step time × 0.51 ± 0.03 (one-sided paired t-test over 3 seeds, Holm-corrected at 5% \
over 2 rows: p = 0.014).
- 1 cell did not finish, and no number above includes them: magran, S = 0.9, seed 0: failed, \
MemoryError: no room.
- Scores: mean ± sample standard deviation over seeds; feature extractor lenet (weights \
0123456789ab), 1,000 samples against 1,437 images of digits/train, resize: none.
- KID: squared MMD with the kernel (x·y / 84 + 1)³, without a unit, over 100 random subsets of \
1,000 images; IS: over 10 parts of the samples; precision, recall: k = 3.
- Marks, against dense: ▲ better, ▼ worse, by two-sided paired t-tests over the 3 seeds that both \
rows have, Holm-corrected at 5% over all comparisons of a score in this table (3 of FID: rows with \
dense, methods with each other at the same S); ≈ as good as dense: within ± 5% of its mean \
score, by two one-sided t-tests (TOST), Holm-corrected at 5% over the rows (▼≈: worse, but by \
less than that); no mark: no difference detected, or fewer than 3 seeds. Bold: the best mean, of \
at least two seeds and not tied; it is no test.
- S is the fraction of the sparsifiable weights that are zero, whole-model S that of all \
parameters; (×): relative to dense.
- Theoretical FLOPs: a masked weight costs nothing, one multiply-add = one FLOP; GFLOPs are \
those of one denoiser call, of which a sample takes 50; decoder not included.
- State: bytes of weights, gradients, optimizer, averaged weights, masks, and what a method \
remembers or a topology update holds beside, counted, at the time when they are most; \
model: of the kept network, of masked weights the active values \
and a bit per connection.
- Step time, sample time: of the cell's own optimizer step and sampling call ÷ those of its dense \
twin, in turns in one process, ± the 95 % interval (of several seeds, all their intervals), on \
Abacus 2 (cpu, 2 threads), kernels: masked dense; load of the machine 0.2 to 1.5.
- Topology updates are not in the step time; spread over all steps, they add up to 0.004 dense \
steps to each.

Differences of FID (lower is better), paired over 3 seeds; p of two-sided t-tests, Holm-corrected \
over these 3:

| S | score | A − B | mean difference | 95 % interval | p (Holm) |
|-:|-:|-:|-:|-:|-:|
| 0.5 | FID | static − dense | -1.33 | -2.77 to +0.10 | 0.114 |
| 0.5 | FID | rigl − dense | -1.00 | -1.25 to -0.75 | 0.010 |
| 0.5 | FID | static − rigl | -0.33 | -1.99 to +1.32 | 0.477 |
"""


def unpadded(markdown):
    """Markdown without the blanks and dashes that align its tables."""
    lines = [" ".join(line.split()) for line in markdown.splitlines()]
    return [re.sub("-+", "-", line) if line.startswith("|") else line for line in lines]


def table_cells(markdown, column):
    """One column of the (first) table, as text."""
    lines = [line for line in markdown.split("\n- ")[0].splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    index = cells[0].index(column)
    return [row[index] for row in cells[1:]]


def test_markdown_by_hand(records):
    assert unpadded(render(records, "markdown", "Three methods")) == unpadded(MARKDOWN)


@pytest.mark.parametrize(
    ("final", "mean", "columns", "note"),
    [
        (20, 20.05, {}, "that are zero, whole-model S that"),
        (
            20,
            45,
            {"mean S": "0.550"},
            "to be zero, mean S the average over the training's steps, w",
        ),
        (
            25,
            25,
            {"final S": "0.750", "mean S": "0.750"},
            "end of the training, mean S the average",
        ),
        (30, 20, {"final S": "0.700"}, "to be zero, final S that which is zero at the end of the"),
    ],
)
def test_sparsities_that_are_not_what_was_asked_for(make_record, final, mean, columns, note):
    record = make_record("gmp", 0.8)
    counted = {"active_sparsifiable": final, "mean_active_sparsifiable": mean}
    record = record.model_copy(update={"counts": record.counts.model_copy(update=counted)})
    markdown = render([make_record("dense"), record])
    header = next(line for line in markdown.splitlines() if line.startswith("| method"))
    titles = [title.strip() for title in header.strip("|").split("|")]
    assert titles[1 : titles.index("whole-model S")] == ["S", *columns]
    for title, value in columns.items():
        assert table_cells(markdown, title) == ["0.000", value]
    assert note in markdown
    assert "final_sparsity" in render([record], "csv")


def test_single_seeds_cannot_tell_noise(make_record):
    markdown = render(
        [make_record(fid=5.0), make_record("static", 0.5, fid=4.0), make_record("x", 0.5, fid=6.0)]
    )
    assert table_cells(markdown, "FID ↓") == ["5.00", "4.00", "6.00"]


def test_higher_is_better_for_recall_and_worse_beyond_noise_is_marked(make_record):
    def of(sparsifier, sparsity, values):
        return [
            make_record(sparsifier, sparsity, seed, scores=Scores(recall=value))
            for seed, value in enumerate(values)
        ]

    records = [
        *of("dense", 0, (0.5, 0.6, 0.7)),
        *of("up", 0.5, (0.6, 0.71, 0.79)),
        *of("down", 0.5, (0.4, 0.51, 0.59)),
    ]
    recall = table_cells(render(records), "recall ↑")
    assert recall == ["0.600 ± 0.100", "**0.700 ± 0.095** ▲", "0.500 ± 0.095 ▼"]


@pytest.mark.parametrize(
    ("static", "shown"),
    [
        ((6, 8), ["**6.00 ± 1.41**", "7.00 ± 1.41"]),
        ((5, 7), ["6.00 ± 1.41", "6.00 ± 1.41"]),
        ((4, 6), ["6.00 ± 1.41", "**5.00 ± 1.41**"]),
        ((4,), ["6.00 ± 1.41", "4.00"]),
    ],
)
def test_bold_is_the_one_best_mean_of_at_least_two_seeds(make_record, static, shown):
    records = [
        *(make_record("dense", 0, seed, fid) for seed, fid in enumerate((5, 7))),
        *(make_record("static", 0.5, seed, fid) for seed, fid in enumerate(static)),
    ]
    assert table_cells(render(records), "FID ↓") == shown


def test_negative_kid_keeps_its_digits(make_record):
    records = [
        make_record(scores=Scores(kid=-0.00123)),
        make_record("static", 0.5, scores=Scores(kid=0.0005)),
    ]
    assert table_cells(render(records), "KID ↓") == ["-0.00123", "0.00050"]


def test_a_score_of_fewer_seeds_says_so(make_record):
    records = [make_record(seed=0, fid=1.0), make_record(seed=1, fid=3.0), make_record(seed=2)]
    assert table_cells(render(records), "FID ↓") == ["2.00 ± 1.41 (n = 2)"]


def test_scores_nobody_asked_for_have_no_column(make_record):
    assert "KID" not in render([make_record(fid=1.0)]).split("\n- ")[0]


def test_everything_failed(make_record):
    markdown = render([make_record(status="diverged", error="loss nan at step 512")])
    assert table_cells(markdown, "active parameters (×)") == ["—"]
    assert "dense, S = 0, seed 0: diverged, loss nan at step 512." in markdown


@pytest.fixture
def skipped(make_record):
    """Three cells of a task whose data is not there, for two reasons."""
    return [
        make_record(seed=seed, status="skipped", error=error, cell={"dataset": "faces"})
        for seed, error in enumerate(("set $FACES_1", "set $FACES_1", "no network"))
    ]


def test_a_task_that_was_skipped_is_a_line(records, skipped):
    line = "ldm on faces: 3 cells skipped: set $FACES_1; no network"
    markdown = render([*skipped, *records], "markdown", "Three methods")
    assert unpadded(markdown) == [*unpadded(MARKDOWN), "", "## Skipped", "", f"- {line}"]
    assert render(skipped, "markdown", "t") == f"# t\n\n## Skipped\n\n- {line}\n"
    latex = render([*skipped, *records], "latex")
    assert latex.count(r"\begin{tabular}") == 1
    assert "\n\nldm on faces: 3 cells skipped: set \\$FACES\\_1; no network\n\n" in latex
    assert json.loads(render(skipped, "json")) == []
    assert render(skipped, "csv").splitlines() == render(records, "csv").splitlines()[:1]


def test_a_skipped_cell_among_others_is_in_the_note(make_record):
    records = [make_record(fid=5.0), make_record(seed=1, status="skipped", error="no network")]
    note = "1 cell did not finish, and no number above includes them: dense, S = 0, seed 1: skipped"
    assert f"- {note}, no network.\n" in render(records)


def test_untrained_denoiser(make_record):
    records = [
        make_record(seed=seed, fid=fid, untrained_scores=Scores(fid=200))
        for seed, fid in enumerate((10, 30))
    ]
    note = "- Untrained denoiser: FID 200.00; the dense cells reach 0.100 of it."
    assert note in render(records).splitlines()


@pytest.mark.parametrize(("samples", "warned"), [(84, True), (85, False)])
def test_fewer_samples_than_features(make_record, samples, warned):
    markdown = render([make_record(fid=1.0, protocol={"samples": samples})])
    assert ("strongly biased" in markdown) == warned


def test_several_machines(make_record):
    gpu = {"gpu": "Loom 9", "device": "cuda"}
    records = [
        make_record("static", 0.5, timed=(0.5, 0.5)),
        make_record("rigl", 0.5, timed=(0.5, 0.5), environment=gpu, peak_memory=300 * 2**20),
        make_record("magran", 0.5, environment={"cpu": "Abacus 1"}),  # where nothing was timed
    ]
    markdown = render(records)
    assert "on Abacus 2 (cpu, 2 threads); Loom 9 (cuda, 2 threads), kernels" in markdown
    assert table_cells(markdown, "peak GPU MiB") == ["—", "300", "—"]
    assert "peak GPU MiB" not in render(records[:1])


def test_a_ratio_of_cpu_time_says_so(make_record):
    record = make_record("static", 0.5, timed=(0.5, 0.25))
    assert record.measurement
    step = record.measurement.step.model_copy(update={"clock": "cpu", "high": 0.503, "low": 0.497})
    measurement = record.measurement.model_copy(update={"step": step})
    markdown = render([record.model_copy(update={"measurement": measurement})])
    assert table_cells(markdown, "step time (×)") == ["0.500 ± 0.003 (CPU)"]
    assert table_cells(markdown, "sample time (×)") == ["0.25 ± 0.02"]
    assert "- (CPU): of CPU time, because" in markdown
    assert "(CPU): of CPU time" not in render([record])


def test_names_are_escaped_in_markdown(make_record):
    record = make_record("a|b<i>_c_*d*", 0.5, cell={"dataset": "x\n## y"})
    markdown = render([record], title="<script>")
    assert r"| a\|b&lt;i&gt;\_c\_\*d\* " in markdown
    assert "\n## ldm on x ## y\n" in markdown
    assert markdown.startswith("# &lt;script&gt;\n")


def test_names_are_escaped_in_latex(make_record):
    record = make_record(r"a_b & 50% {\x} #1 $2 ~^", 0.5)
    latex = render([record], "latex", "two\nlines")
    assert (
        r"a\_b \& 50\% \{\textbackslash{}x\} \#1 \$2 \textasciitilde{}\textasciicircum{} & 0.5 & "
    ) in latex
    assert latex.startswith("% two lines\n")


def test_latex_table(records):
    latex = render(records, "latex")
    assert r"\begin{tabular}{lrrrrrrrrrrr}" in latex
    assert r"11.00 $\pm$ 2.05 $\blacktriangle$ & " in latex
    assert r"static & 0.5 & 0.417 & 3 & \textbf{10.67 $\pm$ 1.53} & " in latex
    lines = latex.splitlines()
    body = lines[lines.index(r"\toprule") : lines.index(r"\bottomrule")]
    assert [line.count(" & ") for line in body if line.endswith(r"\\")] == [11] * 5


def test_csv_round_trip(records):
    read = pd.read_csv(io.StringIO(render(records, "csv")))
    expected = leaderboard(records)
    numbers = expected.select_dtypes("number").columns
    pd.testing.assert_frame_equal(read[numbers], expected[numbers], rtol=1e-15)
    assert list(read["method"]) == ["dense", "static", "rigl", "magran"]
    assert list(read.columns) == list(expected.columns)


def test_json_is_strict_and_at_full_precision(records):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    lines = json.loads(render(records, "json"), parse_constant=refuse)
    assert [line["fid_mean"] for line in lines] == [12, 32 / 3, 11, None]
    assert lines[1]["seeds"] == 3


@pytest.mark.parametrize("format", ["markdown", "csv", "latex", "json"])
def test_nothing_to_render(format):
    with pytest.raises(StoreError, match="no record"):
        render([], format)


def test_published_scores_stand_under_the_tables_of_their_task(make_record):
    given = {"model": "ldm", "dataset": "digits", "source": "arXiv 2504.21380"}
    targets = [
        TargetSettings(**given, sparsifier="dense", mean=31.09, scored_by="torch-fidelity"),
        TargetSettings(**given, sparsifier="static", sparsity=0.5, mean=28.79, spread=12.65,
                       scored_by="torch-fidelity"),
        TargetSettings(**given, sparsifier="dense", mean=0.7, score="recall"),
        TargetSettings(**given | {"dataset": "faces"}, sparsifier="dense", mean=1),
    ]  # fmt: skip
    found = tables([make_record("dense", 0, 0, 12)], targets=targets)
    assert list(published(found[0])) == [
        "Published: FID, dense 31.09, static (S = 0.5) 28.79 ± 12.65 (arXiv 2504.21380; scored by "
        "torch-fidelity); not under this table's protocol.",
        "Published: recall, dense 0.7 (arXiv 2504.21380); not under this table's protocol.",
    ]
    assert "- Published: FID" in render_tables(found, "markdown")
