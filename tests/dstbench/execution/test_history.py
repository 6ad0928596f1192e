"""Tables that a training leaves behind as it goes."""

import csv
import os

import pytest
import torch
from dstbench_magran import MagRan
from dstbench_static import Static
from torch import nn

from dstbench.execution.history import TOPOLOGY, UPDATES, TopologyLog, rewind


def attached(kind=MagRan, total_steps: int = 100, **settings):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    optimizer = torch.optim.AdamW(model.parameters())
    sparsifier = kind(0.5, total_steps=total_steps, distribution="uniform", **settings)
    sparsifier.attach(model, optimizer)

    def step() -> None:
        optimizer.zero_grad()
        model(torch.randn(5, 8)).square().sum().backward()
        optimizer.step()

    return sparsifier, step


def rows(path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_static_masks_are_told_of_once(tmp_path) -> None:
    sparsifier, _ = attached(Static)
    path = tmp_path / "topology.csv"

    TopologyLog(path, sparsifier, 100, 0)
    TopologyLog(path, sparsifier, 100, 50)  # went on from a checkpoint

    assert rows(path) == [
        {"step": "0", "layer": "0.weight", "density": "0.5", "changed": "0"},
        {"step": "0", "layer": "1.weight", "density": "0.5", "changed": "0"},
    ]


def test_each_update_is_told_of_with_what_it_changed(tmp_path) -> None:
    sparsifier, step = attached(exploration_frequency=10)
    path = tmp_path / "topology.csv"
    log = TopologyLog(path, sparsifier, 100, 0)
    totals = {}

    def note(number: int, changed: int) -> None:
        totals[str(number)] = changed
        log.note(number)

    sparsifier.on_topology_update = note
    for _ in range(30):
        step()

    told = rows(path)[2:]
    assert [row["step"] for row in told] == ["10", "10", "20", "20", "30", "30"]
    for number, total in totals.items():
        assert sum(int(row["changed"]) for row in told if row["step"] == number) == total > 0


def test_there_are_never_many_rows(tmp_path) -> None:
    sparsifier, _ = attached(Static)
    path = tmp_path / "topology.csv"
    log = TopologyLog(path, sparsifier, 10_000, 0)

    for step in range(1, 10_001):
        log.note(step)

    assert len(rows(path)) == 2 * (UPDATES + 1)


@pytest.mark.parametrize("text", ["", "step,layer,density,changed\n5,a,0.5,1\nx,a\n7,b,0.5,1\n"])
def test_what_is_yet_to_come_or_cannot_be_read_is_left_out(tmp_path, text: str) -> None:
    path = tmp_path / "topology.csv"
    path.write_text(text)

    rewind(path, TOPOLOGY, 6)

    assert rows(path) == rows(path)[:1]
    assert path.read_text().startswith("step,layer,density,changed")


def test_a_pipe_in_its_place_is_not_waited_for(tmp_path) -> None:
    path = tmp_path / "topology.csv"
    os.mkfifo(path)

    rewind(path, TOPOLOGY, 6)

    assert rows(path) == []


def test_a_link_in_its_place_is_not_written_through(tmp_path) -> None:
    path, mine = tmp_path / "topology.csv", tmp_path / "mine"
    mine.write_text("mine")
    path.symlink_to(mine)

    TopologyLog(path, attached(Static)[0], 100, 0)

    assert mine.read_text() == "mine"
    assert len(rows(path)) == 2
