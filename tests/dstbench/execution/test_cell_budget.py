"""Cells that are trained for as long as the dense one, in FLOPs or in time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dstbench_snip import SNIP
from toys import ToyImages, ToyWidths

from dstbench.contracts import Items, Workspace
from dstbench.execution import budget as budgets
from dstbench.execution.pipeline import Pipeline
from dstbench.execution.scheduler import Scheduler
from dstbench.grid import Cell
from dstbench.planning.planner import plan
from dstbench.plugins.registry import Plugins
from dstbench.records import Ratio
from dstbench.store import Store

MakeCell = Callable[..., Cell]
RIGL = {"exploration_frequency": 3}


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Has steps take half the time of dense ones; tells what was timed."""
    timed: list[str] = []

    def paired_ratio(ours: Callable[[], Any], reference: Callable[[], Any], **_: Any) -> Ratio:
        for _ in range(4):
            ours()
            reference()
        timed.append("step")
        return Ratio(ratio=0.5, low=0.49, high=0.51, clock="wall", wall_ratio=0.5, rounds=4)

    def update_cost(steps: Any, updates: list[int]) -> float:
        timed.append("update")
        assert updates == [2, 7, 12]
        return 0.6

    monkeypatch.setattr(budgets, "paired_ratio", paired_ratio)
    monkeypatch.setattr(budgets, "update_cost", update_cost)
    return timed


@pytest.fixture
def run(
    plugins: Plugins, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Cell], Any]:
    """Runs a cell, and returns its record and its folder; plans know its data."""
    plugins.add(ToyWidths)
    monkeypatch.setattr(ToyImages, "outline", lambda self: Items((1, 4, 4)))

    def run(cell: Cell) -> Any:
        store = Store(tmp_path / "results")
        (record,) = Scheduler(store, Pipeline(plugins, workspace)).run([cell])
        return record, store.cell(cell)

    return run


@pytest.fixture
def same_as_plain(run: Callable[..., Any], make_cell: MakeCell) -> Callable[..., None]:
    """Compares a cell with a plain one of as many steps."""

    def same(cell: Cell, record: Any, folder: Any) -> None:
        settings = cell.training | {"budget": "steps", "steps": record.steps}
        plain, other = run(cell.model_copy(update={"training": settings}))
        assert plain.budget is None
        for name in ("denoiser.safetensors", "samples.npy"):
            assert (folder.path / name).read_bytes() == (other.path / name).read_bytes(), name
        assert record.topology_updates == plain.topology_updates

    return same


def test_the_dense_cell_has_the_steps_of_its_settings(
    run: Callable[..., Any], make_cell: MakeCell
) -> None:
    record, _ = run(make_cell(training={"budget": "flops"}))
    assert (record.steps, record.budget) == (12, None)


@pytest.mark.parametrize("method", ["static", "rigl", "gmp"])
def test_as_many_steps_as_take_the_flops(
    method: str,
    run: Callable[..., Any],
    make_cell: MakeCell,
    same_as_plain: Callable[..., None],
    plugins: Plugins,
) -> None:
    settings = {} if method == "static" else RIGL
    cell = make_cell(
        method,
        0.75,
        sparsifier_settings=settings,
        training={"budget": "flops", "learning_rate_schedule": "cosine"},
        model_settings={"width": 8},
    ).model_copy(update={"model": "toy-widths"})
    record, folder = run(cell)
    counts, steps = record.counts, record.steps
    assert steps == {"static": 48, "rigl": 39, "gmp": 28}[method]
    assert counts.training_flops <= counts.dense_training_flops == 3 * 16 * 720 * 6 * 12
    assert counts.dense_training_flops < counts.training_flops * (steps + 1) / steps
    same_as_plain(cell, record, folder)
    (planned,) = plan([cell], plugins)
    assert (planned.steps, planned.counts) == (steps, counts)


def test_counts_that_follow_from_gradients_are_known_once_attached(
    run: Callable[..., Any],
    make_cell: MakeCell,
    same_as_plain: Callable[..., None],
    plugins: Plugins,
) -> None:
    plugins.add(SNIP)
    cell = make_cell("snip", 0.75, training={"budget": "flops"}, model_settings={"width": 8})
    cell = cell.model_copy(update={"model": "toy-widths"})
    record, folder = run(cell)
    counts = record.counts
    assert record.steps > 12
    assert counts.training_flops <= counts.dense_training_flops
    assert counts.dense_training_flops < counts.training_flops * (record.steps + 1) / record.steps
    same_as_plain(cell, record, folder)


def test_as_many_steps_as_take_the_time(
    run: Callable[..., Any],
    make_cell: MakeCell,
    same_as_plain: Callable[..., None],
    half: list[str],
    plugins: Plugins,
) -> None:
    cell = make_cell("rigl", 0.5, sparsifier_settings=RIGL, training={"budget": "time"})
    cell = cell.model_copy(update={"model": "toy-widths"})
    torch.manual_seed(3)
    record, folder = run(cell)
    assert half == ["step", "update"]
    assert record.budget.step.ratio == 0.5
    # two updates in twelve steps, after the third and the sixth
    assert record.budget.update.interval == 6
    assert record.budget.update.dense_steps == 0.6 * 0.5
    assert record.steps == round(12 / (0.5 + 0.3 / 6)) == 22
    same_as_plain(cell, record, folder)
    (planned,) = plan([cell], plugins)
    assert planned.steps is None
    assert planned.training_flops is None
    assert "not known beforehand" in planned.problem


def test_a_narrower_network_is_timed_against_the_whole_one(
    run: Callable[..., Any], make_cell: MakeCell, half: list[str]
) -> None:
    cell = make_cell("small-dense", 0.5, training={"budget": "time"})
    record, _ = run(cell.model_copy(update={"model": "toy-widths"}))
    assert half == ["step"]
    assert (record.steps, record.budget.update) == (24, None)


def test_a_resumed_cell_has_the_steps_that_it_began_with(
    run: Callable[..., Any],
    make_cell: MakeCell,
    same_as_plain: Callable[..., None],
    half: list[str],
    plugins: Plugins,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cell = make_cell("static", 0.5, training={"budget": "time", "checkpoint_every": 6})
    with monkeypatch.context() as patched:
        original = budgets.Trainer.take_step

        def stumble(self: Any) -> float:
            if self.step == 8:
                raise RuntimeError("on purpose")
            return original(self)

        patched.setattr(budgets.Trainer, "take_step", stumble)
        record, folder = run(cell)
        assert record.status == "failed"
    assert half == ["step"]
    record, folder = run(cell)
    assert record.status == "done"
    assert half == ["step"]  # not timed again
    assert record.steps == 24
    assert record.budget.step.rounds == 4
    same_as_plain(cell, record, folder)


def test_a_method_that_changes_its_density_has_no_time_to_measure(
    run: Callable[..., Any], make_cell: MakeCell, half: list[str]
) -> None:
    cell = make_cell("gmp", 0.5, sparsifier_settings=RIGL, training={"budget": "time"})
    record, _ = run(cell)
    assert record.status == "failed"
    assert "changes its density in training" in record.error
