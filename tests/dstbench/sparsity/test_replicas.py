"""Replicas under DistributedDataParallel decide alike."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from itertools import product
import torch
from sparsity_methods import GradientGrowth, RandomGrowth, make
from torch import distributed, nn, optim
from torch.nn.parallel import DistributedDataParallel
from dstbench.sparsity import Sparsifier

rank, path = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method=f"file://{path}/store", rank=rank, world_size=2)


class Sensitivity(Sparsifier):
    needs_initial_gradient = True

    def first_scores(self, layer, rng):
        return (layer.weight * layer.dense_gradient).abs()


class Network(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 16), nn.Linear(16, 4))

    def forward(self, x):
        hidden = self[1](self[0](x))
        if kind == "skipping" and step % 2 == rank:  # in one process only
            return self[3](hidden)
        return self[3](self[2](hidden))


METHODS = {"rigl": GradientGrowth, "skipping": GradientGrowth, "magran": RandomGrowth,
           "snip": Sensitivity}


def backward(step):
    data = torch.Generator().manual_seed(2 * step + rank)  # each its own
    replica(torch.randn(4, 8, generator=data)).square().mean().backward()


for kind, wrapped in product(METHODS, ("wrapped", "bare")):
    step = 0
    torch.manual_seed(0)
    model = Network()
    replica = DistributedDataParallel(model, find_unused_parameters=kind == "skipping")
    optimizer = optim.AdamW(model.parameters(), 0.01)
    sparsifier = make(METHODS[kind], 0.8, every=5, total_steps=60)
    network = replica if wrapped == "wrapped" else model
    sparsifier.attach(network, optimizer, backward=lambda: backward(99))
    for step in range(23):
        if step == 14 and rank == 0 and kind == "rigl":  # an inactive weight's gradient, here alone
            layer = sparsifier.layers[0]
            hook = layer.weight.register_hook(lambda g: torch.where(layer.mask, g, torch.nan))
            backward(step)
            hook.remove()
        else:
            backward(step)
        optimizer.step()
        optimizer.zero_grad()
    sparsifier.verify()
    skipped = sparsifier.skipped_updates
    state = {"masks": [each.mask for each in sparsifier.layers], "skipped": skipped,
             "updates": sparsifier.topology_updates,
             "weights": [each.weight.data for each in sparsifier.layers]}
    torch.save(state, f"{path}/{kind}-{wrapped}-{rank}.pt")
    sparsifier.detach()
"""


UPDATES = {"rigl": 3, "skipping": 4, "magran": 4, "snip": 0}


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the states of both replicas of each kind, after their training."""
    folder = tmp_path_factory.mktemp("replicas")
    script = folder / "replica.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n{SCRIPT}")
    commands = [[sys.executable, script, str(rank), folder] for rank in (0, 1)]
    processes = [subprocess.Popen(c, stderr=subprocess.PIPE, text=True) for c in commands]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:  # they may wait for each other
        for process in processes:
            process.kill()
    return folder


@pytest.mark.parametrize("wrapped", ["wrapped", "bare"])
@pytest.mark.parametrize("kind", UPDATES)
def test_replicas_have_the_same_masks(kind: str, wrapped: str, states: Path) -> None:
    import torch

    one, two = (
        torch.load(states / f"{kind}-{wrapped}-{rank}.pt", weights_only=True) for rank in (0, 1)
    )
    for what in ("masks", "weights"):
        assert all(map(torch.equal, one[what], two[what])), what
    assert one["skipped"] == two["skipped"] == (kind == "rigl")
    assert one["updates"] == two["updates"] == UPDATES[kind]
