"""Plans, against the counts of cells that were really run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dstbench.contracts import Data, Dataset, Items, Workspace
from dstbench.execution.pipeline import Pipeline
from dstbench.execution.scheduler import Scheduler
from dstbench.grid import Cell
from dstbench.grid.expansion import cells
from dstbench.grid.reader import load_benchmark
from dstbench.planning import planner as planning
from dstbench.planning.planner import Plan, plan
from dstbench.planning.speed import Speed
from dstbench.plugins.plugin import Plugin
from dstbench.plugins.registry import Plugins
from dstbench.store import Store

Cells = Callable[[str], list[Cell]]
"""The cells of a benchmark, given in TOML."""


class Waves(Dataset):
    """Sketches of eight points."""

    name = "waves"
    kind = "sketches"

    def outline(self) -> Items:
        return Items((8, 3), "sketches of 8 points")

    def load(self, workspace: Workspace) -> Data:
        x, up = torch.arange(8.0), torch.zeros(8)
        sketches = [torch.stack([x, (x * n).sin(), up], dim=1) for n in range(1, 30)]
        rng = torch.Generator().manual_seed(0)
        pictures = torch.randint(256, (64, 1, 4, 4), generator=rng, dtype=torch.uint8)
        return Data(sketches[:20], sketches[20:], "waves", lambda items: pictures[: len(items)])


class Photographs(Dataset):
    """The form of the paper's images, and nothing else."""

    name = "photographs"
    kind = "images"

    def outline(self) -> Items:
        return Items((3, 256, 256))

    def load(self, workspace: Workspace) -> Data:
        raise AssertionError("a plan needs no data")


@pytest.fixture
def plugins(plugins: Plugins) -> Plugins:
    plugins.listing += [
        Plugin(cls.name, "dataset", "tests", "1.0", "ok", cls=cls) for cls in (Waves, Photographs)
    ]
    return plugins


@pytest.fixture
def cells_of(plugins: Plugins, tmp_path: Path) -> Cells:
    def cells_of(text: str) -> list[Cell]:
        path = tmp_path / "x.toml"
        path.write_text(text)
        return cells(load_benchmark(path, plugins))

    return cells_of


REAL = """
name = "real"
[grid]
seeds = [0]
sparsities = [0.3, 0.9]
sparsifiers = ["dense", "static", "rigl", "magran"]
[[tasks]]
model = "chirodiff"
dataset = "waves"
[[tasks]]
model = "ldm"
dataset = "digits"
[models.chirodiff]
layers = 2
units = 6
sampling_steps = 5
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
steps = 2
batch_size = 8
[sparsifiers.rigl]
exploration_frequency = 2
keep_dense = ["*in*", "*_l0*"]
[training]
steps = 6
batch_size = 4
[evaluation]
extractor = "toy-features"
samples = 8
kid_subsets = 2
"""


def check(plans: list[Plan], plugins: Plugins, workspace: Workspace, folder: Path) -> None:
    """That the cells, if they are run, have the same counts, to the last digit."""
    scheduler = Scheduler(Store(folder), Pipeline(plugins, workspace))
    records = scheduler.run([each.cell for each in plans])
    assert [record.status for record in records] == ["done"] * len(plans)
    assert [each.counts for each in plans] == [record.counts for record in records]
    for each, record in zip(plans, records, strict=True):
        assert record.sizes is not None
        assert each.kept_bytes == record.sizes.model_bytes
        assert each.kept_ratio == each.kept_bytes / record.sizes.dense_model_bytes


def test_the_counts_of_chirodiff_are_those_of_real_cells(
    cells_of: Cells, plugins: Plugins, workspace: Workspace, tmp_path: Path
) -> None:
    plans = plan(cells_of(REAL.replace('"*in*", ', ""))[:7], plugins)
    assert {each.assumed for each in plans} == {"sketches of 8 points"}
    check(plans, plugins, workspace, tmp_path / "results")


@pytest.mark.slow
def test_the_counts_of_latent_diffusion_are_those_of_real_cells(
    cells_of: Cells, plugins: Plugins, workspace: Workspace, tmp_path: Path
) -> None:
    plans = plan(cells_of(REAL.replace(', "*_l0*"', ""))[7:], plugins)
    assert {each.assumed for each in plans} == {""}
    check(plans, plugins, workspace, tmp_path / "results")


def test_the_counts_of_a_schedule_are_those_of_real_cells(
    cells_of: Cells, plugins: Plugins, workspace: Workspace, tmp_path: Path
) -> None:
    text = SMALL.replace('["dense", "static", "rigl", "magran"]', '["static", "gmp", "granet"]')
    settings = text.index("[sparsifiers.rigl]"), text.index("[training]")
    often = "[sparsifiers.{}]\nexploration_frequency = 2\n".format
    text = text[: settings[0]] + often("gmp") + often("granet") + text[settings[1] :]
    plans = plan(cells_of(text), plugins)
    check(plans, plugins, workspace, tmp_path / "results")
    static, gmp, granet = (each.counts for each in plans if each.cell.sparsity == 0.9)
    assert static
    assert gmp
    assert granet
    assert gmp.active_parameters == static.active_parameters
    # dense for two steps; S = 0.9 (1 − (1/2)³) for two; 0.9 for two
    assert gmp.mean_sparsity == pytest.approx(0.9 * (0 + 7 / 8 + 1) / 3, abs=0.01)
    assert static.training_flops < granet.training_flops < gmp.training_flops
    assert gmp.training_flops < gmp.dense_training_flops


PAPER = """
name = "paper"
[grid]
seeds = [0, 1, 2]
sparsities = [0.1, 0.25, 0.5, 0.75, 0.9]
sparsifiers = ["dense", "static"]
[[tasks]]
model = "ldm"
dataset = "photographs"
"""


@pytest.mark.slow
def test_the_network_of_the_paper(cells_of: Cells, plugins: Plugins) -> None:
    plans = plan(cells_of(PAPER), plugins)
    assert len(plans) == 3 * 6
    assert plans[:6] == [replace(each, cell=plans[n].cell) for n, each in enumerate(plans[6:12])]
    ratios = []
    for each in plans[:6]:
        assert each.counts is not None
        assert each.sparsifiable_flops is not None
        assert each.counts.parameters == 274_056_163
        assert each.counts.sparsifiable == 273_872_704
        assert each.sparsifiable_flops.dense / 1e9 == pytest.approx(96.02, abs=0.005)
        ratios.append(each.sparsifiable_flops.masked / each.sparsifiable_flops.dense)
    assert ratios == pytest.approx([1, 0.974, 0.908, 0.675, 0.275, 0.120], abs=0.0005)
    assert plans[0].checkpoint_bytes == 4 * 4 * 274_056_163
    assert plans[0].kept_bytes == 4 * 274_056_163
    # Of layers that are not dense, 4 bytes of each active weight and a bit of every one.
    for each, sparsity in zip(plans[1:6], (0.1, 0.25, 0.5, 0.75, 0.9), strict=True):
        assert each.kept_ratio is not None
        assert each.checkpoint_bytes is not None
        density = 1 - sparsity
        assert density < each.kept_ratio < density + 1 / 32 + 0.001
        checkpoint = each.checkpoint_bytes / plans[0].checkpoint_bytes
        assert density < checkpoint < density + 1 / 128 + 0.001


SMALL = REAL.replace(
    """[[tasks]]
model = "ldm"
dataset = "digits"
""",
    "",
).replace('"*in*", ', "")
SMALL = SMALL[: SMALL.index("[models.ldm]")] + SMALL[SMALL.index("[sparsifiers.rigl]") :]


def test_every_network_is_counted_once(
    cells_of: Cells, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []
    measure = planning.measure

    def count_calls(*arguments: Any) -> Any:
        measured.append(arguments)
        return measure(*arguments)

    monkeypatch.setattr(planning, "measure", count_calls)
    other = (
        '[[tasks]]\nmodel = "chirodiff"\ndataset = "waves"\n[tasks.models.chirodiff]\nunits = 3\n'
    )
    plans = plan(cells_of(SMALL.replace("seeds = [0]", "seeds = [0, 1]") + other), plugins)
    assert len(plans) == 2 * 2 * 7
    assert all(each.counts for each in plans)
    assert len(measured) == 2


def test_what_a_plugin_does_not_tell_is_said(cells_of: Cells, plugins: Plugins) -> None:
    toys = SMALL.replace("chirodiff", "toy-net").replace("waves", "{}")
    toys = toys[: toys.index("[models")] + toys[toys.index("[training]") :]
    (unknown_items, *_) = plan(cells_of(toys.replace("{}", "toy-images")), plugins)
    (unknown_denoiser, *_) = plan(cells_of(toys.replace("{}", "photographs")), plugins)
    assert (unknown_items.counts, unknown_denoiser.counts) == (None, None)
    assert unknown_items.problem == (
        "dataset 'toy-images' does not tell the shape of its items before it is loaded (it has no "
        "'outline')"
    )
    assert unknown_denoiser.problem == (
        "model 'toy-net' does not tell its denoiser before it has data "
        "(it has no 'outline', or one that needs to know more)"
    )


def test_a_cell_that_cannot_be_counted_costs_the_others_nothing(
    cells_of: Cells, plugins: Plugins
) -> None:
    plans = plan(cells_of(SMALL.replace("*_l0*", "conv*")), plugins)
    problems = {each.cell.sparsifier: each.problem for each in plans}
    assert problems["static"] == problems["dense"] == problems["magran"] == ""
    assert problems["rigl"].startswith('keep_dense: "conv*" matches no parameter')
    assert all((each.counts is None) == (each.cell.sparsifier == "rigl") for each in plans)


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit])
def test_a_plugin_that_fails_is_quoted(
    cells_of: Cells,
    plugins: Plugins,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    def explode(self: Waves) -> Items:
        raise error("not today")

    monkeypatch.setattr(Waves, "outline", explode)
    plans = plan(cells_of(SMALL), plugins)
    assert {each.problem for each in plans} == {f"{error.__name__}: not today"}


def test_times_follow_from_steps_and_calls(
    cells_of: Cells, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def speed(outline: Any, training: Any, batch: int, device: torch.device) -> Speed:
        asked.append(
            (training.batch_size, batch, {p.device for p in outline.denoiser.parameters()})
        )
        return Speed(training_step=2.0, call=0.25)

    monkeypatch.setattr(planning, "measure_speed", speed)
    cpu = torch.device("cpu")
    plans = plan(
        cells_of(SMALL.replace("samples = 8", "samples = 8\nuntrained = true")), plugins, cpu
    )
    assert asked == [(4, 64, {cpu})]
    assert {each.training_seconds for each in plans} == {6 * 2.0}
    sampling = {each.cell.sparsifier: each.sampling_seconds for each in plans}
    once = 8 * 5 * 0.25
    assert sampling == {"dense": 2 * once, "static": once, "rigl": once, "magran": once}
    for each in plans:
        assert each.counts is not None
        runs = 2 if each.cell.sparsifier == "dense" else 1
        assert each.sampling_flops == runs * 8 * each.counts.sample_flops


def test_a_machine_that_cannot_train_it_still_has_counts(
    cells_of: Cells, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    def speed(*_: Any) -> Speed:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(planning, "measure_speed", speed)
    plans = plan(cells_of(SMALL), plugins, torch.device("cpu"))
    assert {each.problem for each in plans} == {"not timed: OutOfMemoryError: no room"}
    assert all(each.counts and each.training_seconds is None for each in plans)
