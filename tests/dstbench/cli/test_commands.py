"""The command line, with the toys installed as a third party's distribution."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from csv import DictReader
from itertools import chain
from pathlib import Path
from textwrap import dedent, indent
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from dstbench_local import Local
from PIL import Image

from dstbench import __version__, cli
from dstbench.contracts import Ended, RunCell
from dstbench.errors import ConfigError
from dstbench.grid import Cell
from dstbench.store import CellFolder

BENCHMARK = (Path(__file__).parents[1] / "toys.toml").read_text()


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Dstbench = Callable[..., Outcome]
"""Runs the command line with these arguments."""


@pytest.fixture
def dstbench(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Dstbench:
    """In this process."""

    def dstbench(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["dstbench", *arguments])
        capsys.readouterr()
        threads = torch.get_num_threads()
        with pytest.raises(SystemExit) as exited:
            cli.main()
        torch.set_num_threads(threads)
        code = exited.value.code
        assert code is None or isinstance(code, int)
        return Outcome(code or 0, *capsys.readouterr())

    return dstbench


def in_a_process(*arguments: str) -> Outcome:
    command = [sys.executable, "-c", "from dstbench.cli import main; main()", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return Outcome(done.returncode, done.stdout, done.stderr)


def lines(csv: Path) -> list[dict[str, str]]:
    return list(DictReader(csv.read_text(encoding="utf-8").splitlines()))


def methods(leaderboard: Path) -> list[str]:
    """Those of a leaderboard's CSV, row by row."""
    return [row["method"] for row in lines(leaderboard)]


# What was asked wrongly

KNOWN = ", ".join(
    ("dense", "gmp", "granet", "grasp", "leftmost", "magran", "rigl", "set", "small-dense", "snfs",
     "snip", "srigl", "static", "top-kast")
)  # fmt: skip
"""The sparsifiers that come with dstbench, and the toys'."""


def check_refused(outcome: Outcome, message: str) -> None:
    """One message on stderr, and nothing else anywhere."""
    assert outcome == Outcome(2, "", f"error: {message}\n")
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("steps = 12", "stepps = 12"),
            "toys.toml:11: training.stepps: unknown key; did you mean 'steps'? (known: batch_size, "
            "betas, budget, channels_last, checkpoint_every, checkpoint_minutes, decay_every, "
            "decay_factor, ema_decay, ema_warmup, gradient_clip, kernels, learning_rate, "
            "learning_rate_schedule, log_every, micro_batches, momentum, optimizer, precision, "
            "steps, warmup_steps, weight_decay)",
        ),
        (
            ('"leftmost"', '"leftmots"'),
            "toys.toml:6: grid.sparsifiers[1]: unknown sparsifier 'leftmots'; did you mean "
            f"'leftmost'? (known: {KNOWN})",
        ),
        (
            ("[0.5]", "[1.2]"),
            "toys.toml:5: grid.sparsities[0]: should be less than 1, is 1.2",
        ),
        (
            ("[0.5]", "[0.5"),
            "toys.toml: this is not valid TOML: Unclosed array (at line 6, column 1): "
            'sparsifiers = ["dense", "leftmost"]',
        ),
        (
            ("seeds = [0]", "seeds = []"),
            "toys.toml:4: grid.seeds: is empty; it needs at least one",
        ),
        (
            ('["dense", "leftmost"]', "[]"),
            "toys.toml:6: grid.sparsifiers: is empty; it needs at least one",
        ),
        (
            ("sparsities = [0.5]", "sparsities = []"),
            "toys.toml:5: grid.sparsities: is empty, but leftmost would need at least one",
        ),
        (
            ("batch_size = 6", "batch_size = 60"),
            "toy-net on toy-images: the dataset has 26 training examples, fewer than "
            "training.batch_size = 60; a batch size of at most 26 would fit",
        ),
    ],
)
def test_a_benchmark_that_is_wrong(
    dstbench: Dstbench, folder: Path, change: tuple[str, str], message: str
) -> None:
    assert BENCHMARK.count(change[0]) == 1
    (folder / "toys.toml").write_text(BENCHMARK.replace(*change))
    check_refused(dstbench("run", "toys.toml"), message)


def test_a_benchmark_that_is_not_there(dstbench: Dstbench) -> None:
    check_refused(
        dstbench("run", "toy.toml"),
        "toy.toml: no such file; benchmarks in that folder: did you mean 'toys.toml'? "
        "(known: toys.toml)",
    )


@pytest.mark.parametrize("device", ["nonsense", "cuda"])
def test_a_device_that_is_not_there(
    dstbench: Dstbench, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    check_refused(
        dstbench("run", "toys.toml", "--device", device),
        f"there is no device '{device}' on this machine; choose among auto, cpu",
    )


def test_results_without_records(dstbench: Dstbench, folder: Path) -> None:
    for name in ("nowhere", "."):
        check_refused(
            dstbench("leaderboard", name),
            f"{Path(name)}: no records here; name the folder of a benchmark that was run, "
            "such as results/quickstart",
        )


def test_an_unknown_plugin(dstbench: Dstbench) -> None:
    outcome = dstbench("plugins", "toy-nett")
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("error: unknown plugin 'toy-nett'; did you mean 'toy-net'? (")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("run", "toys.toml", "--threads", "0"), "Invalid value for '--threads'"),
        (("run",), "Missing argument"),
        (("leaderboard", ".", "--format", "docx"), "Invalid value for '--format'"),
        (("rum", "toys.toml"), "No such command 'rum'"),
    ],
)
def test_arguments_that_are_wrong(
    dstbench: Dstbench, arguments: tuple[str, ...], complaint: str
) -> None:
    outcome = dstbench(*arguments)
    assert outcome.code == 2
    assert complaint in " ".join(outcome.err.replace("│", "").split())
    assert "Traceback" not in outcome.err


def test_a_message_is_not_markup_and_is_not_wrapped(dstbench: Dstbench, folder: Path) -> None:
    name = f"[bold]{'long' * 40}.toml"
    outcome = dstbench("run", name)
    assert outcome.err.startswith(f"error: {name}: no such file;")
    assert outcome.err.count("\n") == 1


# Running


def test_a_dry_run_prints_the_cells(dstbench: Dstbench, folder: Path) -> None:
    outcome = dstbench("run", "toys.toml", "--dry-run")
    assert (outcome.code, outcome.err) == (0, "")
    header, dense, sparse, count = outcome.out.splitlines()
    assert header.split() == [
        "cell", "model", "dataset", "sparsifier", "S", "seed", "varied", "settings"
    ]  # fmt: skip
    assert dense.split()[1:] == ["toy-net", "toy-images", "dense", "0.0", "0"]
    assert sparse.split()[1:] == ["toy-net", "toy-images", "leftmost", "0.5", "0"]
    assert sparse.split()[0].startswith("toy-net-toy-images-leftmost-0.5-0-")
    assert count == "2 cells"
    assert list(folder.iterdir()) == [folder / "toys.toml"]


def test_ids_are_whole_however_long_they_are(dstbench: Dstbench, folder: Path) -> None:
    (folder / "toys.toml").write_text(BENCHMARK.replace("seeds = [0]", "seeds = [123456789012]"))
    run, dry_run = dstbench("run", "toys.toml"), dstbench("run", "toys.toml", "--dry-run")
    assert run.code == 0
    ids = [line.split()[0] for line in dry_run.out.splitlines()[1:-1]]
    assert ids == sorted(path.name for path in folder.glob("results/toys/cells/*"))


@pytest.mark.parametrize("name", ["leaderboard.md", "samples.png"])
def test_a_leaderboard_that_cannot_be_written_is_printed(
    dstbench: Dstbench, folder: Path, name: str
) -> None:
    first = dstbench("run", "toys.toml")
    file = folder / "results" / "toys" / name
    file.unlink()
    file.mkdir()
    for command in (("run", "toys.toml"), ("leaderboard", "results/toys", "--write")):
        assert dstbench(*command) == Outcome(
            2, first.out, f"error: results/toys/{name}: cannot be written to: Is a directory\n"
        )


def test_a_path_is_told_as_it_is(dstbench: Dstbench, folder: Path) -> None:
    dstbench("run", "toys.toml")
    name = f"[bold]{'long' * 50}\x1b"
    told = name.replace("\x1b", r"\x1b")
    assert dstbench("report", "results/toys", "-o", name) == Outcome(0, "", f"written: {told}\n")
    assert (folder / name).exists()


def test_a_run_and_another_one(dstbench: Dstbench, folder: Path) -> None:
    first = dstbench("run", "toys.toml", "--device", "cpu", "--threads", "1")
    assert first.code == 0
    assert "[1/2] toy-net on toy-images, dense S=0, seed 0\n" in first.err
    assert "[2/2] toy-net on toy-images, leftmost S=0.5, seed 0\n" in first.err
    assert "written: results/toys/leaderboard.md\n" in first.err
    assert "# toys" in first.out
    results = folder / "results" / "toys"
    assert {path.name for path in results.iterdir()} == {
        "cells", "leaderboard.csv", "leaderboard.md", "report.html", "cells.csv", "comparisons.csv",
        "layout.json", "written.json", "samples.png", "neighbours.png", "fid_vs_sparsity.png",
        "fid_vs_flops.png", "fid_vs_step_time.png", "fid_vs_sample_time.png",
    }  # fmt: skip
    record = json.loads(next(results.glob("cells/*dense*/record.json")).read_text())
    assert (record["status"], record["environment"]["threads"]) == ("done", 1)
    assert first.out.strip() in (results / "leaderboard.md").read_text()

    files = {path: path.read_bytes() for path in results.glob("cells/*/*")}
    again = dstbench("run", "toys.toml")
    assert again == Outcome(0, first.out, "written: results/toys/leaderboard.md\n")
    assert {path: path.read_bytes() for path in results.glob("cells/*/*")} == files


def test_what_is_told_goes_into_a_file_as_well(dstbench: Dstbench, folder: Path) -> None:
    tracking = '[tracking]\ntrackers = ["toy-lines"]\n'
    (folder / "toys.toml").write_text(BENCHMARK + tracking)
    done = dstbench("run", "toys.toml", "--jobs", "1", "--log-file", "run.log")
    assert done.code == 0
    told = [line.partition(" ")[2] for line in (folder / "run.log").read_text().splitlines()]
    assert [line for line in told if line.startswith("[2/2]")] == [
        line for line in done.err.splitlines() if line.startswith("[2/2]")
    ]
    assert told[-1] == "written: results/toys/leaderboard.md"
    assert "toy-features features of 26 images: toy-images" in told
    assert len(list(folder.glob("results/toys/cells/*/told.jsonl"))) == 2
    dstbench("run", "to.toml", "--log-file", "run.log")
    assert " error: to.toml: no such file" in (folder / "run.log").read_text().splitlines()[-1]
    (folder / "toys.toml").write_text(BENCHMARK + tracking.replace("toy", "tin"))
    refused = dstbench("run", "toys.toml", "--log-file", "run.log")
    assert refused.err.startswith(
        "error: toys.toml:21: tracking.trackers[0]: unknown tracker 'tin-lines'; did you mean "
        "'toy-lines'?"
    )


def test_some_cells_at_a_time_and_the_leaderboard_of_all(dstbench: Dstbench, folder: Path) -> None:
    dense = dstbench("run", "toys.toml", "--only", "sparsifier=dense")
    assert dense.code == 0
    assert "[1/1] toy-net on toy-images, dense S=0, seed 0\n" in dense.err
    table = folder / "results" / "toys" / "leaderboard.csv"
    assert methods(table) == ["dense"]

    sparse = dstbench("run", "toys.toml", "--skip", "sparsity=0")
    assert sparse.code == 0
    assert "[1/1] toy-net on toy-images, leftmost S=0.5, seed 0\n" in sparse.err
    assert methods(table) == ["dense", "leftmost"]
    assert sparse.out == dstbench("run", "toys.toml").out


def test_a_record_that_cannot_be_read_costs_the_others_nothing(
    dstbench: Dstbench, folder: Path
) -> None:
    dstbench("run", "toys.toml", "--only", "sparsifier=dense")
    (record,) = folder.glob("results/toys/cells/*/record.json")
    record.write_text("{}")
    outcome = dstbench("run", "toys.toml", "--only", "sparsifier=leftmost")
    assert outcome.code == 0
    assert f"{record.relative_to(folder)}: not a record of this version" in outcome.err
    assert "| leftmost" in outcome.out


def test_selected_cells_of_a_dry_run(dstbench: Dstbench) -> None:
    outcome = dstbench("run", "toys.toml", "--dry-run", "--only", "seed=0", "--skip", "sparsity=0")
    assert outcome.out.splitlines()[-1] == "1 cells"
    check_refused(
        dstbench("run", "toys.toml", "--only", "sparsifier=dense", "--only", "sparsity=0.5"),
        "no cell is left by --only sparsifier=dense --only sparsity=0.5; there are: "
        "model toy-net; dataset toy-images; sparsifier dense, leftmost; sparsity 0, 0.5; seed 0",
    )


def test_a_sparsifier_that_only_the_command_line_names_joins_the_grid(
    dstbench: Dstbench, folder: Path
) -> None:
    (folder / "toys.toml").write_text(BENCHMARK.replace('["dense", "leftmost"]', '["leftmost"]'))
    only = ("--only", "sparsifier=dense, magran", "--only", "sparsifier=leftmost")
    dry_run = dstbench("run", "toys.toml", "--dry-run", *only)
    cells = [line.split()[3:5] for line in dry_run.out.splitlines()[1:-1]]
    assert cells == [["dense", "0.0"], ["leftmost", "0.5"], ["magran", "0.5"]]
    planned = json.loads(dstbench("plan", "toys.toml", "--format", "json", *only).out)
    assert [row["sparsifier"] for row in planned] == ["dense", "leftmost", "magran"]

    assert dstbench("run", "toys.toml").code == 0
    joined = dstbench("run", "toys.toml", *only[:2])
    assert joined.code == 0
    assert "[2/2] toy-net on toy-images, magran S=0.5, seed 0\n" in joined.err
    table = folder / "results" / "toys" / "leaderboard.csv"
    assert methods(table) == ["dense", "leftmost", "magran"]
    # Both stay, though neither is in the file, until its tasks are trained in another way.
    again = dstbench("run", "toys.toml")
    assert methods(table) == ["dense", "leftmost", "magran"]
    assert again.out == dstbench("leaderboard", "results/toys").out
    (folder / "toys.toml").write_text(
        (folder / "toys.toml").read_text().replace("steps = 12", "steps = 10")
    )
    dstbench("run", "toys.toml")
    assert methods(table) == ["leftmost"]


def test_a_sparsifier_that_nobody_knows_joins_no_grid(dstbench: Dstbench) -> None:
    check_refused(
        dstbench("run", "toys.toml", "--only", "sparsifier=dense,leftmots"),
        "--only sparsifier=leftmots: unknown sparsifier 'leftmots'; did you mean 'leftmost'? "
        f"(known: {KNOWN})",
    )


def test_an_upgraded_plugin_makes_new_cells(
    dstbench: Dstbench, folder: Path, toys_installed: Path
) -> None:
    (folder / "toys.toml").write_text(BENCHMARK.replace("leftmost", "magran"))
    first = dstbench("run", "toys.toml")
    (metadata,) = toys_installed.glob("toys-*/METADATA")
    metadata.write_text("Name: toys\nVersion: 2.0\n")
    second = dstbench("run", "toys.toml")
    assert "[2/2] toy-net on toy-images, magran S=0.5, seed 0\n" in second.err
    # A run tells of the versions that are installed, a folder of all that were ever run there.
    assert second.out.count("\n## ") == first.out.count("\n## ") == 1
    both = dstbench("leaderboard", "results/toys").out
    headings = [line for line in both.splitlines() if line.startswith("## ")]
    assert headings == [
        "## toy-net on toy-images (toys 1.0)",
        "## toy-net on toy-images (toys 2.0)",
    ]

    cells = {
        json.loads(path.read_text())["cell"]["versions"]["model"]: str(path.parent)
        for path in folder.glob("results/toys/cells/*dense*/record.json")
    }
    old, new = (dstbench("sample", cells[f"toys {n}"], "--count", "1") for n in ("1.0", "2.0"))
    assert (old.code, new.code) == (0, 0)
    assert new.err == "written: 1 files in samples\n"
    assert old.err.splitlines()[:-1] == [
        f"    the cell was trained with {plugin} of toys 1.0, but toys 2.0 is installed"
        for plugin in ("model 'toy-net'", "dataset 'toy-images'")
    ]


PRESET = """
[presets.tiny.grid]
seeds = [1]
[presets.tiny.training]
steps = 2
"""


def test_a_preset_has_a_folder_of_its_own(dstbench: Dstbench, folder: Path) -> None:
    (folder / "toys.toml").write_text(BENCHMARK + PRESET)
    assert dstbench("run", "toys.toml", "--preset", "tiny").code == 0
    (results,) = (folder / "results").iterdir()
    assert results.name == "toys-tiny"
    records = [json.loads(path.read_text()) for path in results.glob("cells/*/record.json")]
    assert [(r["cell"]["seed"], r["cell"]["training"]["steps"]) for r in records] == [(1, 2)] * 2
    outcome = dstbench("run", "toys.toml", "--dry-run", "--preset", "tinny")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == (
        "error: toys.toml: unknown preset 'tinny'; did you mean 'tiny'? (known: tiny)\n"
    )


def test_a_preset_without_dense_keeps_the_reference_that_was_run(
    dstbench: Dstbench, folder: Path
) -> None:
    preset = '\n[presets.tiny.grid]\nsparsifiers = ["leftmost"]\n'
    (folder / "toys.toml").write_text(BENCHMARK + preset)
    dstbench("run", "toys.toml", "--preset", "tiny", "--only", "sparsifier=dense")
    dstbench("run", "toys.toml", "--preset", "tiny")
    assert methods(folder / "results" / "toys-tiny" / "leaderboard.csv") == ["dense", "leftmost"]


def test_results_elsewhere(dstbench: Dstbench, folder: Path) -> None:
    assert dstbench("run", "toys.toml", "--results", "else/where").code == 0
    assert (folder / "else" / "where" / "toys" / "leaderboard.md").exists()
    assert not (folder / "results").exists()


def test_results_where_nothing_can_be_written(dstbench: Dstbench, folder: Path) -> None:
    outcome = dstbench("run", "toys.toml", "--results", "toys.toml")
    assert outcome == Outcome(
        2,
        "",
        f"error: toys.toml/toys: no results can be kept here: {folder / 'toys.toml'} is not a "
        "folder; name another folder with --results\n",
    )


def test_a_leaderboard_in_every_format(dstbench: Dstbench) -> None:
    printed = dstbench("run", "toys.toml").out

    def leaderboard(*options: str) -> str:
        outcome = dstbench("leaderboard", "results/toys", *options)
        assert (outcome.code, outcome.err) == (0, "")
        return outcome.out

    assert leaderboard() == leaderboard("--format", "markdown") == printed
    rows = list(DictReader(leaderboard("--format", "csv").splitlines()))
    assert [(row["method"], float(row["sparsity"])) for row in rows] == [
        ("dense", 0.0),
        ("leftmost", 0.5),
    ]
    assert "dense" in json.dumps(json.loads(leaderboard("--format", "json")))
    latex = leaderboard("--format", "latex")
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 1
    cells = list(DictReader(leaderboard("--per-seed", "--format", "csv").splitlines()))
    assert [(row["sparsifier"], row["seed"], row["status"]) for row in cells] == [
        ("dense", "0", "done"),
        ("leftmost", "0", "done"),
    ]
    assert leaderboard("--per-seed").startswith("| cell ")


def test_a_leaderboard_against_another_method(dstbench: Dstbench, folder: Path) -> None:
    text = BENCHMARK.replace('"leftmost"]', '"leftmost", "magran"]') + "[report]\nmargin = 0.5\n"
    (folder / "toys.toml").write_text(text)
    dstbench("run", "toys.toml")
    data = folder / "results" / "toys" / "comparisons.csv"

    def pairs() -> list[tuple[str, str, str]]:
        rows = [row for row in lines(data) if row["score"] == "fid"]
        return [(row["method"], row["against"], row["with_reference"]) for row in rows]

    dense = [("leftmost", "dense", "True"), ("magran", "dense", "True")]
    assert pairs() == [*dense, ("leftmost", "magran", "False")]
    against = dstbench("leaderboard", "results/toys", "--against", "magran")
    assert (against.code, against.err) == (0, "")
    assert pairs()[:2] == dense  # nothing is written that nobody asked for
    outcome = dstbench("leaderboard", "results/toys", "--against", "magran", "--write")
    assert outcome == Outcome(0, against.out, "written: results/toys/leaderboard.md\n")
    assert pairs() == [("leftmost", "magran", "True")]

    def margin(*options: str) -> float:
        dstbench("leaderboard", "results/toys", "--write", *options)
        return float(lines(data)[0]["margin"])

    fid = float(lines(data.with_name("leaderboard.csv"))[0]["fid_mean"])
    assert margin() == pytest.approx(0.5 * fid)  # as the file said
    assert margin("--margin", "0.25") == pytest.approx(0.25 * fid)
    assert dstbench("leaderboard", "results/toys", "--against", "magram") == Outcome(
        2, "", "error: results/toys: nothing can be compared with 'magram': no method of the "
        "leaderboard; did you mean 'magran'? (known: dense, leftmost, magran)\n"
    )  # fmt: skip


def test_samples_of_a_cell_are_those_that_were_scored(dstbench: Dstbench, folder: Path) -> None:
    dstbench("run", "toys.toml")
    (cell,) = folder.glob("results/toys/cells/*leftmost*")
    outcome = dstbench("sample", str(cell), "--count", "3", "--to", "drawn/here")
    assert outcome == Outcome(0, "", "written: 3 files in drawn/here\n")
    kept = np.load(cell / "samples.npy")
    for number in range(3):
        assert (
            np.asarray(Image.open(f"drawn/here/{number:04}.png")) == kept[number, :, :, 0]
        ).all()
    assert not Path("drawn/here/0003.png").exists()


def test_trained_cells_are_scored_in_another_way(dstbench: Dstbench, folder: Path) -> None:
    dstbench("run", "toys.toml")
    outcome = dstbench("score", "results/toys", "--extractor", "lenet-digits")
    assert outcome.code == 0
    assert outcome.err.count("scored again") == len(list(folder.glob("results/toys/cells/*")))
    assert outcome.out.count("extractor=lenet-digits") == outcome.err.count("scored again")
    assert dstbench("score", "results/toys", "--set", "eta").err.startswith("error: --set eta: ")
    given = ("score", "results/toys", "--extractor", "inception", "--extractor-set")
    assert dstbench(*given, "weights").err.startswith("error: --extractor-set weights: NAME=VALUE")
    assert "'inception' names nowhere, which is no file" in dstbench(*given, "weights=nowhere").err
    assert dstbench("leaderboard", "results/toys").out.count("\n## ") == 2
    assert dstbench("score", "results/toys").err.startswith("error: nothing would be other")
    nowhere = dstbench("score", "results", "--eta", "1")
    assert nowhere.err.startswith("error: results: no trained cells are here")


def test_samples_that_cannot_be_had(dstbench: Dstbench, folder: Path) -> None:
    outcome = dstbench("sample", "results/toys")
    assert outcome.code == 2
    assert outcome.err.startswith("error: results/toys: no trained cell is here; name a folder")
    dstbench("run", "toys.toml")
    (cell,) = map(str, folder.glob("results/toys/cells/*leftmost*"))
    assert dstbench("sample", cell, "--format", "svg") == Outcome(
        2, "", "error: these samples are pixels, of which there is no SVG; write them as png\n"
    )
    assert dstbench("sample", cell, "--to", "toys.toml") == Outcome(
        2, "", "error: toys.toml: cannot be written to: File exists\n"
    )
    Path(cell, "denoiser.safetensors").write_bytes(b"")
    outcome = dstbench("sample", cell)
    assert outcome.code == 2
    assert "this cell is damaged, or of another version of dstbench or of 'toy-net'" in outcome.err


def test_a_failed_cell_is_told_and_exits_with_one(
    dstbench: Dstbench, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: object) -> None:
        raise ZeroDivisionError("not today")

    with monkeypatch.context() as patch:
        import toys

        patch.setattr(toys.Leftmost, "growth_scores", explode)
        outcome = dstbench("run", "toys.toml")
    assert outcome.code == 1
    assert "[2/2] failed: ZeroDivisionError: not today\n" in outcome.err
    assert outcome.err.endswith("1 of 2 cells have no result\n")
    assert "Traceback" not in outcome.err
    assert dstbench("run", "toys.toml").code == 0


AWAY = """
[[tasks]]
model = "toy-net"
dataset = "toy-images"
[tasks.datasets.toy-images]
away = "WHO"
"""


@pytest.mark.parametrize(
    ("who", "option", "state", "code"),
    [
        ("person", "--yes", "missing ask the toymaker", 3),
        ("web", "--threads=1", "download 1 kB from the toyshop", 3),
        ("web", "-y", "download 1 kB from the toyshop", 0),
        ("offline", "-y", "download 1 kB from the toyshop", 3),
    ],
)
def test_data_that_is_not_there(
    dstbench: Dstbench, folder: Path, who: str, option: str, state: str, code: int
) -> None:
    head, training = BENCHMARK.split("[training]")
    text = f"{head}{AWAY.replace('WHO', who)}[training]{training}"
    (folder / "toys.toml").write_text(text)
    outcome = dstbench("run", "toys.toml", option)
    assert outcome.code == code
    table = [" ".join(line.split()) for line in outcome.err.splitlines()[:4]]
    assert table == [
        "name kind cells state detail",
        "toy-images dataset 2 ready",
        f"toy-images dataset 2 {state}",
        "toy-features feature extractor 4 ready",
    ]
    hint = "--yes downloads what can be; without it, the cells that need it are skipped\n"
    assert (hint in outcome.err) == (option == "--threads=1")
    end = "2 of 4 cells were skipped: their data is not there\n"
    assert outcome.err.endswith(end) == (code == 3)
    assert ("## Skipped" in outcome.out) == (code == 3)
    assert "Traceback" not in outcome.err
    # What has a result needs nothing any more.
    again = dstbench("run", "toys.toml", option)
    assert again.code == code
    assert ("toy-images" in again.err) == (code == 3)
    assert "trained" not in again.err


def test_without_any_data(dstbench: Dstbench, folder: Path) -> None:
    head, training = BENCHMARK.split("[[tasks]]")[0], BENCHMARK.split("[training]")[1]
    task = AWAY.replace("WHO", "person")
    (folder / "toys.toml").write_text(f"{head}{task}[training]{training}")
    outcome = dstbench("run", "toys.toml")
    assert outcome.code == 3
    assert outcome.out == (
        "# toys\n\n## Skipped\n\n- toy-net on toy-images: 2 cells skipped: ask the toymaker\n\n"
    )
    assert "Traceback" not in outcome.err
    for format in ("csv", "json", "latex"):
        assert dstbench("leaderboard", "results/toys", "--format", format).code == 0


# Plugins that fail

PlugIn = Callable[[str, str], None]


def derived(kind: str, name: str, body: str = "") -> str:
    """Source of a plugin module whose class is the toys' of this kind, but for its body."""
    hook, toy = {
        "model": ("dstbench_models", "ToyModel"),
        "dataset": ("dstbench_datasets", "ToyImages"),
        "sparsifier": ("dstbench_sparsifiers", "Leftmost"),
        "extractor": ("dstbench_feature_extractors", "ToyFeatures"),
    }[kind]
    return f"""
from pydantic import Field, model_validator
from dstbench import hookimpl
from dstbench.errors import SparsityError
from toys import {toy} as Toy
class Mine(Toy):
    name = "{name}"
{indent(dedent(body), "    ")}
@hookimpl
def {hook}():
    return [Mine]
"""


FAILING_SPARSIFIERS = {
    "on-import": "import a_module_that_is_not_there",
    "exiting-on-import": "raise SystemExit('needs a newer Python')",
    "at-registration": derived("sparsifier", "x").replace("[Mine]", "1 / 0"),
    "in-settings": derived(
        "sparsifier",
        "in-settings",
        """
        class Settings(Toy.Settings):
            moon: float = Field(default_factory=lambda: 1 / 0)
        """,
    ),
    "in-validator": derived(
        "sparsifier",
        "in-validator",
        """
        class Settings(Toy.Settings):
            @model_validator(mode="after")
            def check(self):
                raise SystemExit("not with me")
        """,
    ),
    "in-constructor": derived(
        "sparsifier", "in-constructor", "def __init__(self, *_, **settings): settings['moon']"
    ),
    "in-training": derived(
        "sparsifier", "in-training", "def growth_scores(self, layer, rng): 1 / 0"
    ),
    "exiting-in-training": derived(
        "sparsifier", "exiting-in-training", "def growth_scores(self, *_): raise SystemExit('bye')"
    ),
}
"""By name of the plugin: its module."""
LAST_WORDS = {
    "on-import": "ModuleNotFoundError: No module named 'a_module_that_is_not_there'",
    "exiting-on-import": "SystemExit: needs a newer Python",
    "at-registration": "ZeroDivisionError: division by zero",
    "in-settings": "ZeroDivisionError: division by zero",
    "in-validator": "SystemExit: not with me",
    "in-constructor": "KeyError: 'moon'",
    "in-training": "ZeroDivisionError: division by zero",
    "exiting-in-training": "SystemExit: bye",
}


def records(folder: Path) -> list[dict[str, Any]]:
    """What a run of toys.toml left behind."""
    return [
        json.loads(path.read_text()) for path in folder.glob("results/toys/cells/*/record.json")
    ]


def check_failed(record: dict[str, Any], name: str, last_words: str) -> None:
    """That the record holds what the plugin of this name raised, as a traceback."""
    assert record["status"] == "failed"
    assert record["error"].startswith("Traceback (most recent call last):")
    assert f"plugged_{name.replace('-', '_')}.py" in record["error"]
    assert record["error"].endswith(f"{last_words}\n")
    assert f"{name} 1.0" in record["cell"]["versions"].values()


def test_a_sparsifier_that_fails_in_any_way_costs_its_own_cells_alone(
    dstbench: Dstbench, folder: Path, plug_in: PlugIn
) -> None:
    for name, source in FAILING_SPARSIFIERS.items():
        plug_in(name, source)
    names = ", ".join(f'"{name}"' for name in FAILING_SPARSIFIERS)
    text = BENCHMARK.replace('"leftmost"]', f'{names}, "leftmost"]')
    (folder / "toys.toml").write_text(text + "[sparsifiers.on-import]\nwhatever = [1, 2]\n")
    assert dstbench("run", "toys.toml", "--dry-run").out.endswith("10 cells\n")
    assert len(json.loads(dstbench("plan", "toys.toml", "--format", "json").out)) == 10

    outcome = dstbench("run", "toys.toml")
    assert outcome.code == 1
    assert outcome.err.endswith("8 of 10 cells have no result\n")
    assert "Traceback" not in outcome.err
    assert "8 cells did not finish, and no number above includes them: " in outcome.out
    found = {record["cell"]["sparsifier"]: record for record in records(folder)}
    done = {name for name, record in found.items() if record["status"] == "done"}
    assert done == {"dense", "leftmost"}
    assert found["on-import"]["cell"]["sparsifier_settings"] == {"whatever": [1, 2]}
    for name, last_words in LAST_WORDS.items():
        check_failed(found[name], name, last_words)
        assert f"{name}, S = 0.5, seed 0: failed, " in outcome.out


FAILING_PLUGINS = {
    "dataset": {
        "broken-data": "",
        "available": "def availability(self, workspace): raise LookupError('no moon')",
        "loaded": "def load(self, workspace): raise LookupError('no moon')",
        "leaving": "def load(self, workspace): raise SystemExit('no moon')",
        "outlined": """
            def outline(self): raise LookupError('no moon')
            def load(self, workspace): return self.outline()
        """,
    },
    "model": {
        "broken-model": "",
        "made": "def __init__(self, *_): raise LookupError('no moon')",
        "built": "def build(self): raise SystemExit('no moon')",
        "told": "def metadata(self): raise LookupError('no moon')",
    },
    "extractor": {
        "broken-features": "",
        "there": "@classmethod\ndef availability(cls, *_): raise SystemExit('no moon')",
        "hashed": "@property\ndef weights_hash(self): raise LookupError('no moon')",
        "seen": "def __call__(self, images): raise LookupError('no moon')",
    },
}
"""By kind and name of the plugin: the body of its class; where it is empty, there is no class."""


def test_a_task_whose_plugin_fails_costs_the_other_tasks_nothing(
    dstbench: Dstbench, folder: Path, plug_in: PlugIn
) -> None:
    task = "[[tasks]]\nmodel = 'toy-net'\ndataset = 'toy-images'\n"
    tasks = ""
    for kind, bodies in FAILING_PLUGINS.items():
        for name, body in bodies.items():
            plug_in(name, derived(kind, name, body) if body else "raise LookupError('no moon')")
            tasks += {
                "dataset": task.replace("toy-images", name),
                "model": task.replace("toy-net", name),
                "extractor": f"{task}[tasks.evaluation]\nextractor = '{name}'\n",
            }[kind]
    text = BENCHMARK.replace('"dense", "leftmost"', '"dense"')
    (folder / "toys.toml").write_text(text.replace("[training]", f"{tasks}[training]"))
    outcome = dstbench("run", "toys.toml")
    assert outcome.code == 1
    assert outcome.err.endswith("13 of 14 cells have no result\n")
    assert "Traceback" not in outcome.err
    for name in chain.from_iterable(FAILING_PLUGINS.values()):
        (record,) = [
            record
            for record in records(folder)
            if f"{name} 1.0" in record["cell"]["versions"].values()
        ]
        check_failed(record, name, "no moon")
    assert dstbench("plan", "toys.toml").code == 0


def test_a_plugin_that_was_mended_is_run(
    dstbench: Dstbench, folder: Path, toys_installed: Path, plug_in: PlugIn
) -> None:
    plug_in("mine", "import a_module_that_is_not_there")
    only = ("--only", "sparsifier=mine")
    failed = dstbench("run", "toys.toml", *only)
    assert failed.code == 1
    assert (
        "    cells that cannot be run: 1 (dstbench.errors.PluginError: sparsifier 'mine' of mine "
        "1.0 is broken: ModuleNotFoundError: No module named 'a_module_that_is_not_there')\n"
    ) in failed.err
    (toys_installed / "plugged_mine.py").write_text(derived("sparsifier", "mine"))
    assert dstbench("run", "toys.toml", *only).code == 0


def test_a_sparsity_that_a_method_cannot_be_had_at_is_an_error_of_the_file(
    dstbench: Dstbench, folder: Path, plug_in: PlugIn
) -> None:
    constructor = """
        def __init__(self, sparsity, **settings):
            if sparsity != 0.5:
                raise SparsityError("2:4 masks have a sparsity of 0.5, no other")
            super().__init__(sparsity, **settings)
    """
    plug_in("two-of-four", derived("sparsifier", "two-of-four", constructor))
    text = BENCHMARK.replace('"leftmost"', '"leftmost", "two-of-four"')
    (folder / "toys.toml").write_text(text.replace("[0.5]", "[0.5, 0.9]"))
    check_refused(
        dstbench("run", "toys.toml"),
        "toys.toml:5: grid.sparsities[1]: two-of-four: 2:4 masks have a sparsity of 0.5, no other",
    )
    (folder / "toys.toml").write_text(text)
    assert dstbench("run", "toys.toml", "--only", "sparsifier=two-of-four").code == 0

    (folder / "toys.toml").write_text(BENCHMARK.replace("[0.5]", "[0.5, 0.9]"))
    joined = dstbench("run", "toys.toml", "--only", "sparsifier=two-of-four")
    assert joined.code == 1
    assert joined.err.startswith(
        "    cells that cannot be run: 1 (dstbench.errors.SparsityError: 2:4 masks have a sparsity "
        "of 0.5, no other)\n"
    )
    only = ("--only", "sparsifier=two-of-four", "--only", "sparsity=0.5")
    assert dstbench("run", "toys.toml", *only).code == 0


def test_a_broken_plugin_hides_no_other_error_of_the_file(
    dstbench: Dstbench, folder: Path, plug_in: PlugIn
) -> None:
    plug_in("in-settings", FAILING_SPARSIFIERS["in-settings"])
    text = BENCHMARK.replace('"leftmost"', '"leftmost", "in-settings"')
    (folder / "toys.toml").write_text(text + "[models.toy-net]\ndropuot = 0.1\n")
    check_refused(
        dstbench("run", "toys.toml"),
        "toys.toml:21: models.toy-net.dropuot: unknown key; did you mean 'dropout'? "
        "(known: dropout)",
    )


def test_an_unknown_plugin_stays_an_error_whatever_is_broken(
    dstbench: Dstbench, folder: Path, plug_in: PlugIn
) -> None:
    plug_in("sad", "import a_module_that_is_not_there")
    (folder / "toys.toml").write_text(BENCHMARK.replace('"leftmost"', '"sadd"'))
    check_refused(
        dstbench("run", "toys.toml"),
        f"toys.toml:6: grid.sparsifiers[1]: unknown sparsifier 'sadd'; known: {KNOWN}; not loaded "
        "('dstbench plugins' says why): broken: sad",
    )


def test_only_pinned_plugins_are_run(
    dstbench: Dstbench, folder: Path, plug_in: PlugIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    plug_in("mine", derived("sparsifier", "mine"))
    only = ("--only", "sparsifier=mine")
    monkeypatch.setenv("DSTBENCH_PLUGINS", "toys")
    check_refused(
        dstbench("run", "toys.toml", *only),
        "--only sparsifier=mine: sparsifier 'mine': the plugin 'mine' of mine 1.0 is switched "
        "off, because DSTBENCH_PLUGINS does not list it",
    )
    assert "plugged_mine" not in sys.modules
    assert dstbench("run", "toys.toml", "--only", "sparsifier=dense").code == 0
    monkeypatch.setenv("DSTBENCH_PLUGINS", "toys,mine")
    assert dstbench("run", "toys.toml", *only).code == 0


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C is heard, which a shell has processes in the background ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_says_how_to_go_on(
    dstbench: Dstbench, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOYS_STOP", "SIGINT:7")
    stopped = dstbench("run", "toys.toml")
    assert stopped.code == 130
    assert stopped.err.endswith("stopped; the same command goes on from the latest checkpoint\n")
    assert "Traceback" not in stopped.err
    (checkpoint,) = (folder / "results" / "toys" / "cells").glob("*/checkpoint.pt")
    assert f"stopped after step 7 of 12, which is saved: {checkpoint.relative_to(folder)}\n" in (
        stopped.err
    )
    assert dstbench("status", "results/toys").out.endswith("2 cells: 2 waiting\n")
    monkeypatch.delenv("TOYS_STOP")
    assert dstbench("run", "toys.toml").code == 0
    assert not checkpoint.exists()


def test_the_status_of_every_cell(dstbench: Dstbench, folder: Path) -> None:
    dstbench("run", "toys.toml")
    header, dense, sparse, count = dstbench("status", "results/toys").out.splitlines()
    assert header.split() == ["cell", "state", "where", "since", "step", "detail"]
    assert dense.split()[0].startswith("toy-net-toy-images-dense-0-0-")
    assert dense.split()[1:] == sparse.split()[1:] == ["done"]
    assert count == "2 cells: 2 done"
    assert dstbench("status", "results") == Outcome(
        2, "", "error: results: no cells here; name the folder of a benchmark that was run, such "
        "as results/quickstart\n"
    )  # fmt: skip


def test_executors_that_are_asked_for(dstbench: Dstbench, folder: Path) -> None:
    outcome = dstbench("run", "toys.toml", "--executor", "locl")
    assert outcome.err.startswith("error: unknown executor 'locl'; did you mean 'local'? (")
    assert dstbench("run", "toys.toml", "--executor", "local").code == 0
    text = BENCHMARK + '[execution]\nexecutor = "here"\n'
    (folder / "toys.toml").write_text(text)
    outcome = dstbench("run", "toys.toml", "--jobs", "2")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "error: --jobs is of executor 'local', not of 'here'\n"
    outcome = dstbench("run", "toys.toml", "--results", "elsewhere")
    assert outcome.code == 0
    assert len(list(folder.glob("elsewhere/toys/cells/*/record.json"))) == 2


def test_jobs_are_auto_or_a_number(dstbench: Dstbench, folder: Path) -> None:
    for wrong in ("0", "-1", "many", "1.5", "1" * 5000):
        outcome = dstbench("run", "toys.toml", f"--jobs={wrong}")
        assert (outcome.code, outcome.out) == (2, "")
        expected = f"error: --jobs {wrong[:20]}: should be auto, or a number from 1 to 1024\n"
        assert outcome.err == expected
    assert not (folder / "results").exists()


def test_jobs_are_auto_unless_the_file_says(
    dstbench: Dstbench, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def run(self: Local, run_cell: RunCell, cells: Sequence[Cell]) -> Iterator[Ended]:
        asked.append(self.settings.jobs)
        raise ConfigError("enough")

    monkeypatch.setattr(Local, "run", run)
    dstbench("run", "toys.toml")
    dstbench("run", "toys.toml", "--jobs", "3")
    dstbench("run", "toys.toml", "--jobs", "auto")
    (folder / "toys.toml").write_text(BENCHMARK.partition("[executors")[0])
    dstbench("run", "toys.toml")
    assert asked == [1, 3, "auto", "auto"]


STRIKES = """
from dstbench import hookimpl
from dstbench.contracts import Executor, PluginSettings

class Particular(Executor):
    name = "particular"
    class Settings(PluginSettings):
        wages: int
    def run(self, run_cell, cells):
        return iter(())

class OnStrike(Executor):
    name = "on-strike"
    def run(self, run_cell, cells):
        run_cell(cells[0])
        raise RuntimeError("no more of this")
        yield

@hookimpl
def dstbench_executors():
    return [Particular, OnStrike]
"""


def test_executors_that_fail(dstbench: Dstbench, folder: Path, plug_in: PlugIn) -> None:
    plug_in("strikes", STRIKES)
    outcome = dstbench("run", "toys.toml", "--executor", "particular")
    assert outcome.code == 2
    assert "executor 'particular' cannot be constructed with these settings" in outcome.err
    assert "wages" in outcome.err
    outcome = dstbench("run", "toys.toml", "--executor", "on-strike")
    assert outcome.code == 2
    assert "error: executor 'on-strike' failed:\nTraceback" in outcome.err
    assert "RuntimeError: no more of this\n" in outcome.err
    assert len(list(folder.glob("results/toys/cells/*/record.json"))) == 1


# Killed, and run again

DIGITS = """
name = "digits"
[grid]
seeds = [0]
sparsities = [0.5]
sparsifiers = ["rigl"]
[[tasks]]
model = "ldm"
dataset = "digits"
[models.ldm]
block_out_channels = [8, 16]
attention = [false, true]
layers_per_block = 1
norm_num_groups = 4
attention_head_dim = 8
sampling_steps = 2
[models.ldm.autoencoder]
codes = 32
block_out_channels = [8, 8, 8]
layers_per_block = 1
norm_num_groups = 4
steps = 3
batch_size = 8
[sparsifiers.rigl]
exploration_frequency = 2
[training]
steps = 12
batch_size = 8
micro_batches = 2
gradient_clip = 1.0
checkpoint_every = 4
log_every = 3
[evaluation]
extractor = "toy-features"
samples = 8
kid_subsets = 2
"""


def history(cell: Path) -> list[list[str]]:
    """Without the column of times."""
    lines = (cell / "history.csv").read_text().splitlines()
    return [[step, loss, updates] for step, loss, _, updates in (each.split(",") for each in lines)]


@pytest.mark.slow
def test_a_killed_run_ends_as_an_uninterrupted_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "digits.toml").write_text(DIGITS)
    cells = folder / "results" / "digits" / "cells"

    monkeypatch.setenv("TOYS_STOP", "SIGKILL:7")
    assert in_a_process("run", "digits.toml").code == -signal.SIGKILL
    (cell,) = cells.iterdir()
    assert {path.name for path in cell.iterdir()} - {"lock"} == {
        "cell.json", "running.json", "history.csv", "topology.csv", "checkpoint.pt"
    }  # fmt: skip

    monkeypatch.setenv("TOYS_STOP", "SIGKILL:11")  # and once more
    assert in_a_process("run", "digits.toml").code == -signal.SIGKILL
    monkeypatch.delenv("TOYS_STOP")
    assert in_a_process("run", "digits.toml").code == 0

    assert in_a_process("run", "digits.toml", "--results", "whole").code == 0
    uninterrupted = folder / "whole" / "digits" / "cells" / cell.name
    for name in ("denoiser.safetensors", "samples.npy", "samples.png"):
        assert (cell / name).read_bytes() == (uninterrupted / name).read_bytes()
    assert history(cell) == history(uninterrupted)
    ours, theirs = (
        json.loads((each / "record.json").read_text()) for each in (cell, uninterrupted)
    )
    for key in ("scores", "validation_loss", "topology_updates", "counts", "metadata"):
        assert ours[key] == theirs[key]
    assert ours["topology_updates"] == 4  # after steps 2, 4, 6 and 8; it stops at 0.75 × 12
    weights = CellFolder(cell).denoiser_state()
    zeros = sum(int((weight == 0).sum()) for weight in weights.values())
    assert zeros >= theirs["counts"]["sparsifiable"] - theirs["counts"]["active_sparsifiable"]


# Plans


def test_a_plan_needs_no_outline_of_a_strangers_model(dstbench: Dstbench, folder: Path) -> None:
    outcome = dstbench("plan", "toys.toml")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("# toys: the plan\n\n## toy-net on toy-images\n")
    assert "- dataset 'toy-images' does not tell the shape of its items" in outcome.out
    rows = json.loads(dstbench("plan", "toys.toml", "--format", "json", "--skip", "sparsity=0").out)
    assert [(row["sparsifier"], row["parameters"]) for row in rows] == [("leftmost", None)]
    assert list(folder.iterdir()) == [folder / "toys.toml"]


STROKES = """
name = "strokes"
[grid]
seeds = [0, 1]
sparsities = [0.5]
sparsifiers = ["dense", "rigl"]
[[tasks]]
model = "chirodiff"
dataset = "digits-strokes"
[models.chirodiff]
layers = 1
units = 4
[presets.tiny.models.chirodiff]
units = 2
"""


def test_a_plan_of_what_comes_along(dstbench: Dstbench, folder: Path) -> None:
    (folder / "strokes.toml").write_text(STROKES)
    rows = list(DictReader(dstbench("plan", "strokes.toml", "--format", "csv").out.splitlines()))
    assert [(row["sparsifier"], row["seed"]) for row in rows] == [
        ("dense", "0"), ("rigl", "0"), ("dense", "1"), ("rigl", "1"),
    ]  # fmt: skip
    # GRU: two directions of 3 · 4 · (13 + 4 + 2 biases); linear: 8·4 + 4 and (4 + 8)·3 + 3
    assert {row["parameters"] for row in rows} == {str(2 * 12 * 19 + 36 + 39)}
    assert {row["training_seconds"] for row in rows} == {""}
    tiny = dstbench("plan", "strokes.toml", "--preset", "tiny", "--only", "seed=1")
    assert tiny.out.startswith("# strokes-tiny: the plan\n")
    assert "- Counted with sketches of 43 points, the mean of those digits." in tiny.out

    timed = dstbench("plan", "strokes.toml", "--calibrate", "--device", "cpu", "--threads", "1")
    assert (timed.code, timed.err) == (0, "")
    assert "(cpu, 1 thread): masks save no time today" in timed.out
    check_refused(
        dstbench("plan", "strokes.toml", "--only", "seed=2"),
        "--only seed=2: no cell has seed '2'; known: 0, 1",
    )


# Plugins, and what is quick


def test_plugins_are_listed(dstbench: Dstbench) -> None:
    outcome = dstbench("plugins")
    assert (outcome.code, outcome.err) == (0, "")
    lines = [line.split() for line in outcome.out.splitlines()]
    assert lines[0] == ["name", "kind", "distribution", "version", "state"]
    assert ["leftmost", "sparsifier", "toys", "1.0", "ok"] in lines
    assert ["rigl", "sparsifier", "dstbench", __version__, "ok"] in lines
    assert ["toy-features", "feature", "extractor", "toys", "1.0", "ok"] in lines


def test_the_settings_of_a_plugin(dstbench: Dstbench) -> None:
    outcome = dstbench("plugins", "leftmost")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith(
        "leftmost: sparsifier of toys 1.0, ok\n"
        "Drop by magnitude, grow the first connections that are free.\n"
    )
    (line,) = [line for line in outcome.out.splitlines() if "exploration_frequency" in line]
    assert line.split()[:3] == ["exploration_frequency", "int", "3"]


def test_plugins_as_json(dstbench: Dstbench) -> None:
    listing = json.loads(dstbench("plugins", "--json").out)
    assert {"toy-net", "toy-images", "leftmost", "toy-features", "ldm", "static"} <= {
        plugin["name"] for plugin in listing
    }
    assert all("settings" not in plugin for plugin in listing)
    (leftmost,) = json.loads(dstbench("plugins", "leftmost", "--json").out)
    assert leftmost["kind"] == "sparsifier"
    assert {
        "name": "exploration_frequency",
        "type": "int",
        "default": "3",
        "meaning": "steps between two topology updates",
    } in leftmost["settings"]


def test_a_broken_plugin_is_listed_with_its_traceback(
    dstbench: Dstbench, folder: Path, toys_installed: Path
) -> None:
    info = toys_installed / "sad-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: sad\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[dstbench]\nsad = a_module_that_is_not_there\n")
    outcome = dstbench("plugins")
    assert outcome.code == 0
    assert ["sad", "—", "sad", "0.1", "broken"] in [
        line.split() for line in outcome.out.split("\n")
    ]
    assert "ModuleNotFoundError: No module named 'a_module_that_is_not_there'" in outcome.out
    assert dstbench("run", "toys.toml", "--dry-run").code == 0


def test_the_version(dstbench: Dstbench) -> None:
    assert dstbench("--version") == Outcome(0, f"{__version__}\n", "")


def test_help_imports_nothing_slow() -> None:
    code = (
        "import sys\n"
        "from dstbench.cli import main\n"
        "sys.argv = ['dstbench', '--help']\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'numpy', 'pandas', 'pydantic', 'diffusers', 'scipy'}"
        " & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "leaderboard" in done.stdout
    assert done.stderr == "[]\n"


def test_an_exported_cell_can_be_sampled_from(dstbench: Dstbench, folder: Path) -> None:
    assert dstbench("run", "toys.toml").code == 0
    cell = next(Path("results/toys/cells").glob("*-leftmost-*"))
    outcome = dstbench("export", str(cell), "out/mine", "--licence", "mit")
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err.endswith("written: out/mine\n")
    files = {path.name for path in Path("out/mine").iterdir()}
    assert files == {"README.md", "model.safetensors", "sampling.safetensors", "samples.png"}
    refused = dstbench("export", str(cell), "out/mine")
    assert refused.code == 2
    assert "is there already" in refused.err
