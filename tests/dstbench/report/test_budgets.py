"""Tables of cells that were trained for as long as dense, and of narrower dense networks."""

from collections.abc import Callable

from dstbench.records import Budget, Ratio, Record, UpdateCost
from dstbench.report.cells import cell_frame
from dstbench.report.leaderboard import leaderboard, tables
from dstbench.report.text import render
from dstbench.report.verdicts import recommendation

MakeRecord = Callable[..., Record]


def by_time(make_record: MakeRecord) -> list[Record]:
    """Two seeds of dense, of 60 steps, and of static, of 100 and 110 at the same time."""
    step = Ratio(ratio=0.55, low=0.5, high=0.6, clock="wall", wall_ratio=0.55, rounds=9)
    cell = {"training": {"steps": 60, "budget": "time"}}
    update = UpdateCost(dense_steps=1, interval=20)
    budgets = [Budget(steps=steps, step=step, update=update) for steps in (100, 110)]
    return [
        *(make_record(seed=seed, fid=9.0, cell=cell) for seed in (0, 1)),
        *(
            make_record("static", 0.5, seed, fid=8.0, cell=cell, budget=budget)
            for seed, budget in enumerate(budgets)
        ),
    ]


def test_rows_of_one_budget_share_a_table_and_tell_their_steps(make_record: MakeRecord) -> None:
    records = by_time(make_record)
    text = render(records)
    lines = [[part.strip() for part in line.split("|")] for line in text.splitlines()]
    (at,) = {line.index("steps") for line in lines if "steps" in line}
    assert [line[at] for line in lines if line[1:2] in (["dense"], ["static"])] == ["60", "105"]
    assert "- Steps: as many as take the training time of 60 dense steps, measured before" in text
    assert list(leaderboard(records)["steps"]) == [60, 105]
    frame = cell_frame(records)
    assert list(frame["steps"]) == [60, 60, 100, 110]
    assert list(frame["budget_step_time_ratio"])[2:] == [0.55, 0.55]
    for record in records:
        assert Record.model_validate_json(record.model_dump_json()) == record


def test_a_budget_of_flops(make_record: MakeRecord) -> None:
    cell = {"training": {"steps": 60, "budget": "flops"}}
    records = [
        make_record(cell=cell),
        make_record("static", 0.5, cell=cell, budget=Budget(steps=120)),
    ]
    text = render(records)
    assert "theoretical training FLOPs of 60 dense steps, counted." in text
    assert "budget_step_time_ratio" not in cell_frame(records)


def test_a_plain_table_has_neither(make_record: MakeRecord) -> None:
    records = [make_record(), make_record("static", 0.5)]
    assert "steps" not in render(records).replace("optimizer step", "")
    assert "budget" not in records[1].model_dump(mode="json")
    assert "narrowed" not in records[1].model_dump(mode="json")


def test_a_narrower_network_is_told_and_not_recommended(make_record: MakeRecord) -> None:
    rows = (("dense", 0.0), ("small-dense", 0.9), ("static", 0.5))
    records = [
        make_record(method, sparsity, seed, fid=9 + seed - (1 + 0.01 * (seed % 2)) * (sparsity > 0))
        for method, sparsity in rows
        for seed in range(5)
    ]
    (table,) = tables(records)
    told = recommendation(table)
    assert told is not None
    assert "static, S = 0.5" in told
    assert "small-dense" not in told
    assert "as a sparse network of that S has active (1.000 to 1.000 of them)" in render(records)
