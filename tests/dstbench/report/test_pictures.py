import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dstbench.errors import StoreError
from dstbench.report.leaderboard import tables
from dstbench.report.neighbours import neighbour_sheet
from dstbench.report.panels import DODGE, dodges
from dstbench.report.plot import fid_vs_sparsity
from dstbench.report.sheet import GAP, MARGIN, sample_sheet
from dstbench.report.trade_off import fid_vs_cost, pareto_front
from dstbench.report.writing import write_report


@pytest.fixture
def records(make_record):
    return [
        make_record(sparsifier, sparsity, seed, fid=10 + 20 * sparsity + seed)
        for sparsifier, sparsities in {"dense": [0.0], "static": [0.5, 0.9], "rigl": [0.5]}.items()
        for sparsity in sparsities
        for seed in (3, 4)
    ]


@pytest.fixture
def samples(records):
    rng = np.random.default_rng(0)
    return {r.cell.id: rng.integers(0, 256, (16, 8, 8, 3), dtype=np.uint8) for r in records}


def test_report_is_complete_and_leaves_nothing_else(records, samples, tmp_path):
    folder = tmp_path / "results" / "quick"
    backend, parameters = mpl.get_backend(auto_select=False), mpl.rcParams.copy()
    write_report(records, folder, samples, {}, "Quick")
    assert {path.name for path in folder.iterdir()} == {
        "leaderboard.md",
        "leaderboard.csv",
        "cells.csv",
        "comparisons.csv",
        "fid_vs_sparsity.png",
        "fid_vs_flops.png",
        "samples.png",
    }
    markdown = (folder / "leaderboard.md").read_text(encoding="utf-8")
    assert markdown.startswith("# Quick\n")
    assert "](fid_vs_sparsity.png)" in markdown
    assert "](samples.png)" in markdown
    assert len(pd.read_csv(folder / "leaderboard.csv")) == 4
    with Image.open(folder / "fid_vs_sparsity.png") as plot:
        assert plot.size == (930, 540)
        assert len(plot.convert("RGB").getcolors(maxcolors=2**24)) > 50
    assert mpl.get_backend(auto_select=False) == backend
    # To compare the backend here would be to choose one.
    assert not {
        key for key in parameters if key != "backend" and mpl.rcParams[key] != parameters[key]
    }


def test_report_with_nothing_to_see(make_record, tmp_path):
    write_report([make_record(fid=1.0)], tmp_path, {}, {})
    assert {path.name for path in tmp_path.iterdir()} == {
        "leaderboard.md", "leaderboard.csv", "cells.csv", "comparisons.csv"
    }  # fmt: skip
    assert "![" not in (tmp_path / "leaderboard.md").read_text(encoding="utf-8")


def test_a_failed_write_leaves_the_old_report(records, tmp_path, monkeypatch):
    (tmp_path / "leaderboard.csv").write_text("old")

    def no_space(*_):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", no_space)
    with pytest.raises(OSError, match="no space"):
        write_report(records, tmp_path, {}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["leaderboard.csv"]
    assert (tmp_path / "leaderboard.csv").read_text() == "old"


def test_plot_has_a_panel_per_table_and_a_line_per_method(records, make_record):
    other = make_record("static", 0.5, fid=3.0, cell={"dataset": "$x"})
    figure = fid_vs_sparsity(tables([*records, other]))
    assert [axes.get_title() for axes in figure.axes] == ["ldm on digits", "ldm on $x"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["dense", "static", "rigl"]
    lines = [line.get_xydata().tolist() for line in figure.axes[0].get_lines()]
    # static, left of RigL: 10 + 20 S + the mean of seeds 3 and 4
    assert [[0.5 - DODGE / 4, 23.5], [0.9 - DODGE / 4, 31.5]] in lines
    assert [[0.5 + DODGE / 4, 23.5]] in lines
    assert [[0.0, 13.5], [1.0, 13.5]] in lines  # dense, from edge to edge


def test_long_names_take_no_room_from_the_panel(make_record):
    method = {"sparsifier_settings": {"prune_rate": 0.5, "exploration_frequency": 100}}
    varied = {"sparsifier_settings": {"prune_rate": 0.1, "exploration_frequency": 20}}
    records = [make_record("rigl", 0.5, fid=9.0, cell=each) for each in (method, varied)]
    figure = fid_vs_sparsity(tables(records))
    assert "exploration_frequency=100" in figure.legends[0].get_texts()[0].get_text()
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert axes.get_window_extent().width / figure.dpi > 3.5
    assert axes.get_tightbbox().x1 < figure.legends[0].get_window_extent().x0


@pytest.mark.parametrize(("fid", "scale"), [(99.0, "linear"), (101.0, "log")])
def test_scale_follows_the_range(make_record, fid, scale):
    figure = fid_vs_sparsity(tables([make_record(fid=10.0), make_record("static", 0.9, fid=fid)]))
    assert figure.axes[0].get_yscale() == scale


def test_no_plot_without_a_sparse_score(make_record):
    assert fid_vs_sparsity(tables([make_record(fid=1.0), make_record("static", 0.5)])) is None


@pytest.mark.parametrize(("what", "times"), [("step", [0.6, 0.4]), ("sample", [0.5, 0.2])])
def test_plot_of_fid_against_time(make_record, what, times):
    records = [
        make_record(fid=10.0),
        make_record("static", 0.5, fid=9.0, timed=(0.6, 0.5)),
        make_record("static", 0.9, fid=20.0, timed=(0.4, 0.2)),
        make_record("rigl", 0.9, fid=30.0),  # which was not timed
        make_record("rigl", 0.5, fid=3.0, cell={"dataset": "untimed"}),
    ]
    (axes,) = fid_vs_cost(tables(records), what).axes
    assert axes.get_xlabel() == f"measured time per {what} ÷ dense"
    lines = [line.get_xydata().tolist() for line in axes.get_lines()]
    assert [[1.0, 10.0]] in lines
    assert [[times[0], 9.0], [times[1], 20.0]] in lines
    assert [[times[1], 20.0], [times[0], 9.0]] in lines  # the front, by ascending time
    assert [text.get_text() for text in axes.texts] == ["0.5", "0.9"]


def test_plot_of_fid_against_flops(make_record):
    records = [
        make_record(fid=10.0),
        make_record("static", 0.5, fid=9.0),
        make_record("rigl", 0.5, fid=8.0),
        make_record("rigl", 0.9, fid=30.0),
    ]
    (axes,) = fid_vs_cost(tables(records), "flops").axes
    assert axes.get_xlabel() == "theoretical FLOPs of a denoiser call ÷ dense"
    lines = [line.get_xydata().tolist() for line in axes.get_lines()]
    assert [[1.0, 10.0]] in lines
    assert [[0.5 - DODGE / 4, 9.0]] in lines
    rigl = [[0.5 + DODGE / 4, 8.0], [pytest.approx(0.1 + DODGE / 4), 30.0]]
    assert any(line == rigl for line in lines)
    # The front knows of no dodging: static is not cheaper than RigL at the same sparsity.
    assert [[pytest.approx(0.1), 30.0], [0.5, 8.0]] in lines


@given(
    st.lists(st.integers(0, 20).map(lambda n: n / 20), min_size=1, max_size=6, unique=True),
    st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6, unique=True),
)
def test_dodged_markers_do_not_meet_and_stay_near(values, order):
    places = pd.DataFrame([(value, name) for value in values for name in order])
    shown = places[0] + dodges(places[0], places[1], order)
    assert shown.round(9).is_unique
    assert (shown - places[0]).abs().max() <= DODGE / 2
    nearest = [min(values, key=lambda value: abs(value - place)) for place in shown]
    assert nearest == list(places[0])


def test_no_plot_without_times(records):
    assert fid_vs_cost(tables(records), "step") is None


def test_pareto_front_by_hand():
    points = pd.DataFrame(
        [(1.0, 5.0), (0.5, 7.0), (0.5, 6.0), (0.7, 6.0), (0.4, 9.0), (0.3, 9.5), (0.2, 9.0)],
        columns=["cost", "fid"],
    )
    front = pareto_front(points)
    assert list(zip(front["cost"], front["fid"], strict=True)) == [
        (0.2, 9.0), (0.5, 6.0), (1.0, 5.0)
    ]  # fmt: skip


def test_report_has_plots_of_what_was_timed(make_record, tmp_path):
    write_report([make_record("static", 0.5, fid=9.0, timed=(0.6, 0.5))], tmp_path, {}, {})
    markdown = (tmp_path / "leaderboard.md").read_text(encoding="utf-8")
    for name in ("fid_vs_step_time.png", "fid_vs_sample_time.png"):
        assert f"]({name})" in markdown
        with Image.open(tmp_path / name) as plot:
            assert plot.size == (930, 540)
    write_report([make_record("static", 0.5, fid=9.0)], tmp_path, {}, {})  # timed no longer
    assert not list(tmp_path.glob("*_time.png"))


def test_sheet_shows_rows_by_columns_of_the_first_seed(make_record):
    records = [make_record(), make_record("static", 0.5), make_record("static", 0.5, seed=1)]
    red, green, blue = (
        np.broadcast_to(np.array(colour, np.uint8), (16, 8, 8, 3))
        for colour in [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    )
    samples = dict(zip((r.cell.id for r in records), (red, green, blue), strict=True))
    sheet = np.asarray(sample_sheet(tables(records), samples, {}))
    tile, twelve = 64, 12
    for colour in (red, green):
        shown = (sheet == colour[0, 0, 0]).all(axis=2)
        assert shown.sum() == twelve * tile * tile
        ys, xs = np.nonzero(shown)
        assert np.ptp(ys) + 1 == tile
        assert np.ptp(xs) + 1 == twelve * (tile + GAP) - GAP
    assert not (sheet == blue[0, 0, 0]).all(axis=2).any()
    assert (sheet[:, :MARGIN] == 255).all()


def test_the_sheet_begins_with_real_images(make_record):
    records = [make_record(), make_record("static", 0.5)]
    red, green = (
        np.broadcast_to(np.array(colour, np.uint8), (12, 8, 8, 3))
        for colour in [(255, 0, 0), (0, 255, 0)]
    )
    samples = {record.cell.id: red for record in records}
    reals = {record.cell.id: green for record in records}
    sheet = np.asarray(sample_sheet(tables(records), samples, reals))
    real, drawn = (np.nonzero((sheet == c[0, 0, 0]).all(axis=2))[0] for c in (green, red))
    assert len(real) * 2 == len(drawn)  # one line of them, above the others
    assert real.max() < drawn.min()
    assert sample_sheet(tables(records), {}, reals) is None


def test_grey_samples_are_enlarged_without_smoothing(make_record):
    checkerboard = np.indices((32, 32)).sum(0) % 2 * 200
    image = checkerboard.astype(np.uint8)[None, :, :, None]
    record = make_record()
    sheet = np.asarray(sample_sheet(tables([record]), {record.cell.id: image}, {}))
    enlarged = np.kron(checkerboard, np.ones((2, 2))).astype(np.uint8)
    tiles = np.lib.stride_tricks.sliding_window_view(sheet[..., 0], (64, 64))
    assert (tiles == enlarged).all(axis=(2, 3)).sum() == 1


def test_no_sheet_without_samples(records):
    assert sample_sheet(tables(records), {}, {}) is None


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 8, 8, 3)), np.zeros((2, 3, 8, 8), np.uint8), np.zeros((8, 8, 3), np.uint8)]
)
def test_samples_of_another_form_are_refused(make_record, bad):
    record = make_record()
    with pytest.raises(StoreError, match=r"uint8 of shape \(n, height, width, 1 or 3\)"):
        sample_sheet(tables([record]), {record.cell.id: bad}, {})


def test_each_sample_stands_beside_its_nearest_training_image(records, samples, tmp_path):
    cell = records[0].cell.id
    near = {cell: 255 - samples[cell][:3]}
    sheet = np.asarray(neighbour_sheet(tables(records), samples, near))
    plain = sample_sheet(tables(records), {cell: np.repeat(samples[cell][:3], 2, axis=0)}, {})
    pairs = sample_sheet(
        tables(records),
        {cell: np.stack([samples[cell][:3], near[cell]], axis=1).reshape(6, 8, 8, 3)},
        {},
    )
    assert sheet.shape[0] == np.asarray(plain).shape[0]
    below = slice(MARGIN + 30, None)  # below the heading, which says something else
    np.testing.assert_array_equal(sheet[below, : plain.width], np.asarray(pairs)[below])
    write_report(records, tmp_path, samples, {}, neighbours=near)
    assert "(neighbours.png)" in (tmp_path / "leaderboard.md").read_text()
    assert (tmp_path / "neighbours.png").exists()
    assert neighbour_sheet(tables(records), samples, {}) is None
